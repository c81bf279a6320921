"""The norms of the pass under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from langnorm_vllm.layers import ResidualStream

_MOST_BYTES = 2**25  # of the states that are kept until the end of a pass


class PassNorms:
    """Notes the norms of the residual stream after the layers of a pass.

    The next layer writes into the states that it is given. Where the pass is small, as it is when sequences get their
    next tokens, its states are kept, and the norms of all layers are computed in one go: what an operation takes to
    begin with is more than that.

    Args:
        stream: How the residual stream of the layers is read.
        num_layers: L, the number of decoder layers.
        num_rows: Most tokens of a pass.
        device: Where the model is.
    """

    def __init__(self, stream: ResidualStream, num_layers: int, num_rows: int, device: torch.device) -> None:
        self._stream = stream
        self._norms = torch.zeros(num_layers, num_rows, device=device)  # (L, N), of the first rows those of `layers`
        self._memory: Tensor | None = None  # for states, of any shape
        self._shape: torch.Size | None = None  # of what a layer returned in the last small pass
        self._states: Tensor | None = None  # (L', N, d) in the memory, if there is room for these
        self._places: Sequence[Tensor] = ()  # in them, of each layer
        self._are_kept = False  # whether the states of the pass under way are
        self.layers: tuple[int, ...] = ()
        """Those that are noted, ascending."""
        self.set_layers(range(num_layers))

    def set_layers(self, layers: Sequence[int]) -> None:
        """Say which layers are noted from now on, L' of them, ascending; at first, all are."""
        if tuple(layers) == self.layers:
            return
        self.layers = tuple(layers)
        self._rows = {layer: row for row, layer in enumerate(self.layers)}
        self._shape = None

    def note(self, layer: int, output: Any) -> None:
        """Note what a layer returned."""
        hidden = self._stream.hidden(output)
        if hidden.shape != self._shape:
            self._make_room(output)
        if self._states is None:
            self.note_now(layer, self._stream.get(output))
        else:
            self._are_kept = True
            self._stream.copy(output, self._places[self._rows[layer]])

    def note_now(self, layer: int, states: Tensor) -> None:
        """Note states (N, d) after a layer. Graphs do so too, which know where the norms lie."""
        self.put(layer, torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32))

    def put(self, layer: int, norms: Tensor) -> None:
        """Note norms (N,) that are known."""
        self._norms[self._rows[layer], : norms.size(0)].copy_(norms)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the norms (L', K) of some rows of the pass (K,), ascending; the pass is over."""
        norms = self._norms[: len(self.layers)]
        is_new = self._are_kept and self._states is not None
        if is_new:
            norms = torch.linalg.vector_norm(self._states, dim=-1, dtype=torch.float32)
        self._are_kept = False
        first, end = int(rows[0]), int(rows[-1]) + 1
        if end - first > len(rows):
            return norms.index_select(1, torch.from_numpy(rows).to(norms.device, non_blocking=True))
        some = norms[:, first:end]
        return some if is_new else some.clone()

    def _make_room(self, output: Any) -> None:
        """Find places for the states of passes in which layers return what has the shape of this."""
        hidden = self._stream.hidden(output)
        if self._memory is None:
            states = self._stream.get(output)
            self._memory = torch.empty(_MOST_BYTES // states.itemsize, dtype=states.dtype, device=states.device)
        num_layers = len(self.layers)
        num_values = num_layers * hidden.numel()
        self._shape, self._states, self._places = hidden.shape, None, ()
        if num_values <= self._memory.numel():
            memory = self._memory[:num_values]
            self._states = memory.view(num_layers, -1, hidden.size(-1))
            self._places = memory.view(num_layers, *hidden.shape).unbind(0)

"""Reads the norm of the residual stream after chosen decoder layers while a model decodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.transformers.decoder_layers import hooked
from langnorm.engines.transformers.residual_stream import get_residual_stream
from langnorm.interventions.token_norms import token_norms

if TYPE_CHECKING:
    from torch import Tensor, nn


_NUM_TOGETHER = 8  # passes whose norms are computed at once: on a CPU, copying a state costs a fraction of its norm


class NormRecorder:
    """Collects `||h_t^l||` of the last position of every forward pass, per layer and row of the batch.

    Norms stay on the layer's device, and so do the last states of up to eight passes, B * hidden values per layer and
    pass; nothing waits for the device until `rows`.
    They are float32 whatever the model's dtype.

    Args:
        layers: 0-based indices of the layers to read, ascending.
        known: Where others put norms (B, 1) of a pass that they have computed anyway, by layer. They are taken out.
    """

    def __init__(self, layers: Sequence[int], known: dict[int, Tensor] | None = None) -> None:
        self.layers = tuple(layers)
        self._known = {} if known is None else known
        self._num_prompt_passes = 1
        self._norms: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}  # (B, passes) each
        self._states: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}  # (B, 1, hidden), not yet norms
        self._num_passes = dict.fromkeys(self.layers, 0)
        self._rows: tuple[int, Tensor] | None = None  # what `rows` found after so many passes

    @contextmanager
    def attached(self, decoder_layers: nn.ModuleList) -> Iterator[None]:
        """Listen to the layers inside the `with` block; no hook is left behind, whatever happens there."""
        with hooked(decoder_layers, {layer: self._hook(layer) for layer in self.layers}):
            yield

    def _hook(self, layer: int) -> Any:
        known, norms, waiting = self._known, self._norms[layer], self._states[layer]
        num_passes = self._num_passes

        def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
            num_passes[layer] += 1
            if known and (found := known.pop(layer, None)) is not None:
                self._compute(layer)
                norms.append(found)
                return
            states = get_residual_stream(output)
            last = states if states.size(1) == 1 else states[:, -1:]
            waiting.append(last.clone())  # the model may write over what its layer returned
            if len(waiting) == _NUM_TOGETHER:
                self._compute(layer)

        return record

    def _compute(self, layer: int) -> None:
        """Turn the states of a layer that wait into norms."""
        if states := self._states[layer]:
            self._norms[layer].append(token_norms(torch.cat(states, dim=1)))
            states.clear()

    @property
    def num_passes(self) -> int:
        """Number of forward passes so far, the prefill among them."""
        return max(self._num_passes.values(), default=0)

    def end_prefill(self) -> None:
        """Take all passes until now as the prompt's: a long one may be run in several."""
        self._num_prompt_passes = self.num_passes

    def rows(self) -> Tensor:
        """Return the norms of decoding as (steps, B, L), float32 on the CPU.

        Row i is generated token i, run at its own position. The passes of the prefill are left out: their last position
        is the prompt's.
        """
        if self._rows is None or self._rows[0] != self.num_passes:
            for layer in self.layers:
                self._compute(layer)
            by_layer = [torch.cat(self._norms[layer], dim=1).T.cpu() for layer in self.layers if self._norms[layer]]
            rows = torch.stack(by_layer, dim=-1) if by_layer else torch.empty(0, 0, len(self.layers))
            self._rows = (self.num_passes, rows)
        return self._rows[1][self._num_prompt_passes :]

"""Sees the residual stream after chosen decoder layers in every forward pass of llama.cpp, and may change it there.

llama.cpp calls back for each tensor of its graph: first to ask whether it is wanted, then, if so, when its values are
there. The residual stream after decoder layer `i` is the tensor `l_out-i`, float32 with one row per token of the pass.
In the last layer only the tokens whose logits are asked for have one. What enters the first layer counts as that after
layer -1; of the tensors that lead to it, such as embeddings and scaled ones, the last that a graph has is taken.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from langnorm.interventions.token_norms import token_norms

if TYPE_CHECKING:
    from torch import Tensor

Act = Callable[[int, "Tensor"], "tuple[Tensor, Tensor | None]"]
"""Takes a layer and the states (N, d) of all tokens of the pass; returns the states that flow on, and their norms (N,)
where they are known."""

_PREFIX = b"l_out-"
_ENTERING = (b"embd", b"inp_embd", b"inp_scaled", b"inpL", b"inp_norm-0")


class StateObserver:
    """Reads states of the tokens of a forward pass.

    Args:
        hidden_size: d, the width of the residual stream.
        num_layers: Number of decoder layers.
    """

    def __init__(self, hidden_size: int, num_layers: int) -> None:
        self._ggml = _load_ggml()
        self._hidden_size = hidden_size
        self._layers = {_PREFIX + str(layer).encode(): layer for layer in range(num_layers)}
        self._layers |= dict.fromkeys(_ENTERING, -1)
        self._wanted: frozenset[int] = frozenset()
        self._act: Act | None = None
        self._acted: frozenset[int] = frozenset()
        self._rows_with_logits: Sequence[int] = ()
        self._num_tokens = 0
        self._keeps_states: frozenset[int] = frozenset()
        self._error: BaseException | None = None
        self._should_stop: Callable[[], bool] = _never
        self.was_stopped = False
        """Whether the last pass was given up before its end."""
        self.callback = self._make_callback()
        """What a context is to call with each tensor of a pass."""
        self.norms: dict[int, Tensor] = {}
        """By layer, the norms (N,) of all tokens of the last pass, float32."""
        self.states: dict[int, Tensor] = {}
        """By layer, the states (N, d) of all tokens of the last pass, where they were asked for."""

    def begin(
        self,
        num_tokens: int,
        rows_with_logits: Sequence[int],
        norm_layers: Iterable[int],
        state_layers: Iterable[int] = (),
        acted_layers: Iterable[int] = (),
        act: Act | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Say what is wanted of the next pass.

        Args:
            num_tokens: N, the number of its tokens.
            rows_with_logits: Rows of the tokens whose logits are asked for, ascending.
            norm_layers: Layers whose norms are read.
            state_layers: Layers whose states are kept.
            acted_layers: Layers at which `act` is called.
            act: Says what becomes of the states.
            should_stop: Asked at each decoder layer: whether nobody waits for this pass any more.
        """
        self._keeps_states, self._acted = frozenset(state_layers), frozenset(acted_layers)
        self._wanted = self._keeps_states | self._acted | frozenset(norm_layers)
        self._num_tokens, self._rows_with_logits = num_tokens, rows_with_logits
        self._act, self._should_stop, self.was_stopped = act, should_stop or _never, False
        self.norms, self.states = {}, {}

    def end(self) -> None:
        """Raise what was raised while the pass was observed: an exception must not cross into C."""
        error, self._error = self._error, None
        self._act, self._should_stop = None, _never
        if error is not None:
            raise error

    def _make_callback(self) -> Callable[[int, bool, Any], bool]:
        """Return what llama.cpp's `cb_eval` is to call, for each of about a thousand tensors of a pass."""
        find_layer, get_name, visit = self._layers.get, self._ggml.get_name, self._visit

        def callback(tensor: int, is_question: bool, _data: Any) -> bool:  # noqa: FBT001
            layer = find_layer(get_name(tensor))
            return layer is not None and visit(layer, tensor, is_question)

        return callback

    def _visit(self, layer: int, tensor: int, is_question: bool) -> bool:  # noqa: FBT001
        """Answer whether the states after a layer are wanted, or take them; returning False then ends the pass."""
        try:
            if is_question:
                self.was_stopped = self.was_stopped or self._should_stop()
                return self.was_stopped or layer in self._wanted
            if self.was_stopped or self._error:
                return False
            self._take(layer, tensor)
        except BaseException as error:  # noqa: BLE001
            self._error = self._error or error
            return False
        return True

    def _take(self, layer: int, tensor: int) -> None:
        num_rows = self._ggml.num_elements(tensor) // self._hidden_size
        rows = torch.empty(num_rows, self._hidden_size)
        self._ggml.read(tensor, rows.data_ptr(), 0, 4 * rows.numel())
        states = rows if num_rows == self._num_tokens else self._spread(rows)
        norms = None
        if self._act is not None and layer in self._acted:
            after, norms = self._act(layer, states)
            if after is not states:
                states = after
                written = states if num_rows == self._num_tokens else states[list(self._rows_with_logits)]
                written = written.contiguous()
                self._ggml.write(tensor, written.data_ptr(), 0, 4 * written.numel())
        self.norms[layer] = token_norms(states) if norms is None else norms
        if layer in self._keeps_states:
            self.states[layer] = states

    def _spread(self, rows: Tensor) -> Tensor:
        """Put rows of the tokens with logits where they belong among all tokens; the others are 0."""
        states = torch.zeros(self._num_tokens, self._hidden_size)
        states[list(self._rows_with_logits)] = rows
        return states


def _never() -> bool:
    return False


class _Ggml:
    """The four functions of ggml that read and write a tensor."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.get_name = library.ggml_get_name
        self.get_name.argtypes, self.get_name.restype = [ctypes.c_void_p], ctypes.c_char_p
        self.num_elements = library.ggml_nelements
        self.num_elements.argtypes, self.num_elements.restype = [ctypes.c_void_p], ctypes.c_int64
        place: list[Any] = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        self.read = library.ggml_backend_tensor_get
        self.read.argtypes, self.read.restype = place, None
        self.write = library.ggml_backend_tensor_set
        self.write.argtypes, self.write.restype = place, None


def _load_ggml() -> _Ggml:
    from pathlib import Path

    import llama_cpp
    from llama_cpp._ctypes_extensions import load_shared_library

    return _Ggml(load_shared_library("ggml-base", Path(llama_cpp.__file__).parent / "lib"))

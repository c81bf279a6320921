"""Runs decoder layers once more for chosen rows, without a trace in the KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache

from langnorm.errors import ModelError, OptionError
from langnorm.norms.layers import layer_output

if TYPE_CHECKING:
    from torch import Tensor, nn

# Kinds of layers in a configuration's `layer_types` that remember keys and values of the tokens, or nothing at all.
_ALLOWED_KINDS = ("full_attention", "sliding_attention", "chunked_attention", "moe", "mlp")


def check_can_rerun(model: Any, layers: Sequence[int], block: int) -> None:
    """Raise an error unless these layers of a model, with the `block` - 1 before each, can be run again.

    Raises:
        OptionError: A block begins below the first layer.
        ModelError: A layer has a recurrent state, or another memory that a second pass would change.
    """
    if layers and layers[0] - block + 1 < 0:
        msg = (
            f"`block={block}` of `recursion` reaches below the first layer from layer `{layers[0]}`. "
            f"Use a block up to {layers[0] + 1}, or later layers."
        )
        raise OptionError(msg)
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        # Such models of transformers have no keys and values, or do not say which layers have.
        is_recurrent = getattr(model, "_is_stateful", False)
        kinds = ["recurrent" if is_recurrent else "full_attention"] * config.num_hidden_layers
    allowed = [layer for layer, kind in enumerate(kinds) if kind in _ALLOWED_KINDS]
    for layer in (layer - back for layer in layers for back in range(block)):
        if layer not in allowed:
            msg = (
                f"Layer `{layer}` of this model (`{kinds[layer]}`) has a recurrent state, or another memory than keys "
                "and values, which running it again would change: recursion is not possible there. "
                f"Use {f'layers of {allowed}, or ' if allowed else ''}steering, which works on every layer."
            )
            raise ModelError(msg)


@dataclass(slots=True)
class _Pass:
    """What a layer was called with in pass 0, and the keys and values that its attention saw."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    keys_values: dict[int, tuple[Tensor, Tensor]]


class _WatchedCache:
    """A cache that keeps what each update returned: a sliding window forgets part of it at once."""

    def __init__(self, cache: Cache, keys_values: dict[int, tuple[Tensor, Tensor]]) -> None:
        self._cache = cache
        self._keys_values = keys_values

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        seen = self._cache.update(keys, values, layer_idx, *args, **kwargs)
        self._keys_values[layer_idx] = seen
        return seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def __len__(self) -> int:
        return len(self._cache)


class _ReadOnlyCache:
    """The keys and values of pass 0 for some rows: an update writes nothing."""

    def __init__(self, cache: Any, keys_values: dict[int, tuple[Tensor, Tensor]], rows: Tensor | None) -> None:
        self._cache = cache
        self._keys_values = keys_values
        self._rows = rows

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:  # noqa: ARG002
        seen = self._keys_values[layer_idx]
        return seen if self._rows is None else tuple(_rows_of(tensor, self._rows) for tensor in seen)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("update"):  # of a recurrent state
            msg = (
                f"A layer that calls `{name}` of its cache has a state that running it again would change. Instead of "
                "recursion, use steering, which works on every layer."
            )
            raise ModelError(msg)
        return getattr(self._cache, name)

    def __len__(self) -> int:
        return len(self._cache)


class LayerRerunner:
    """Remembers how layers were last called, so that they can be called again.

    Args:
        decoder_layers: All decoder layers.
        layers: Indices of those that may be run again.
    """

    def __init__(self, decoder_layers: nn.ModuleList, layers: Sequence[int]) -> None:
        self._decoder_layers = decoder_layers
        self._layers = layers
        self._passes: dict[int, _Pass] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watch the layers inside the `with` block."""
        handles = []
        try:
            for layer in self._layers:
                module = self._decoder_layers[layer]
                handles.append(module.register_forward_pre_hook(self._hook(layer), with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._passes.clear()

    def _hook(self, layer: int) -> Any:
        def watch(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            keys_values: dict[int, tuple[Tensor, Tensor]] = {}

            def watched(value: Any) -> Any:
                return _WatchedCache(value, keys_values) if isinstance(value, Cache) else value

            args = tuple(map(watched, args))
            kwargs = {name: watched(value) for name, value in kwargs.items()}
            self._passes[layer] = _Pass(args, kwargs, keys_values)
            return args, kwargs

        return watch

    def run(self, layers: Sequence[int], states: Tensor, rows: Tensor, batch_size: int) -> Tensor:
        """Return what consecutive layers make of other states at the same positions.

        Args:
            layers: Their indices, ascending.
            states: What enters the first of them (S, T, d).
            rows: Which rows of the batch these are (S,).
            batch_size: B, the number of rows in the batch.
        """
        some = None if len(rows) == batch_size else rows
        for layer in layers:
            last = self._passes[layer]

            def of_rows(value: Any, last: _Pass = last) -> Any:
                return _of_rows(value, some, batch_size, last.keys_values)

            args = tuple(map(of_rows, last.args))
            kwargs = {name: of_rows(value) for name, value in last.kwargs.items()}
            if "hidden_states" in kwargs:
                kwargs["hidden_states"] = states
            else:
                args = (states, *args[1:])
            # `forward`, so that no hook sees this pass.
            states = layer_output(self._decoder_layers[layer].forward(*args, **kwargs))
        return states


def _of_rows(value: Any, rows: Tensor | None, batch_size: int, keys_values: dict[int, tuple[Tensor, Tensor]]) -> Any:
    """Return an argument of a layer for some rows of the batch only; the layer may write to none of it."""
    if isinstance(value, _WatchedCache):
        return _ReadOnlyCache(value, keys_values, rows)
    if isinstance(value, Mapping):  # such as keys and values that later layers share
        return {name: _of_rows(item, rows, batch_size, keys_values) for name, item in value.items()}
    if rows is None:
        return value
    if isinstance(value, torch.Tensor):
        # One dimension is positions, shared by all rows; a leading 1 is shared too.
        return _rows_of(value, rows) if value.ndim > 1 and value.size(0) == batch_size else value
    if isinstance(value, tuple | list):
        return type(value)(_of_rows(item, rows, batch_size, keys_values) for item in value)
    return value


def _rows_of(tensor: Tensor, rows: Tensor) -> Tensor:
    # Arguments come from wherever the layer before was, with weights on several devices.
    return tensor[rows.to(tensor.device)]

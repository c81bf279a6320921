"""Runs decoder layers once more for chosen sequences, without a trace in the KV cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer, StaticLayer

from langnorm.engines.transformers.decoder_layers import for_this_thread
from langnorm.engines.transformers.residual_stream import get_residual_stream
from langnorm.errors import ModelError, OptionError

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
class _LayerCall:
    """What a layer was called with in pass 0, and the keys and values that its attention saw.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        keys_values: By index of the cache's layer, what each update returned; None for a cache that keeps all of it.
        read_only: Such a cache as extra passes see it.
        cache_name: The keyword argument that it is.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    keys_values: dict[int, tuple[Tensor, Tensor]] | None = None
    read_only: _ReadOnlyCache | None = None
    cache_name: str = ""


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
    """The keys and values of pass 0 for some sequences: an update writes nothing.

    Args:
        cache: The cache itself.
        keys_values: What the updates of pass 0 returned; None where the cache still has it.
        sequences: Which sequences of the batch (S,); None for all.
    """

    def __init__(
        self, cache: Any, keys_values: dict[int, tuple[Tensor, Tensor]] | None, sequences: Tensor | None
    ) -> None:
        self._cache = cache
        self._keys_values = keys_values
        self._sequences = sequences

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:  # noqa: ARG002
        if self._keys_values is None:
            layer = self._cache.layers[layer_idx]
            seen = layer.keys, layer.values
        else:
            seen = self._keys_values[layer_idx]
        return seen if self._sequences is None else tuple(_take(tensor, self._sequences) for tensor in seen)

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
        self._calls: dict[int, _LayerCall] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watch the layers inside the `with` block."""
        handles = []
        try:
            for layer in self._layers:
                module = self._decoder_layers[layer]
                hook = for_this_thread(self._hook(layer))
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._calls.clear()

    def _hook(self, layer: int) -> Callable[..., Any]:
        call = self._calls[layer] = _LayerCall()

        def watch(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if call.read_only is None and call.keys_values:
                _use_cache_that_keeps_all(call, kwargs)
            if call.read_only is not None:
                call.args, call.kwargs = args, kwargs
                return None
            keys_values: dict[int, tuple[Tensor, Tensor]] = {}

            def watched(value: Any) -> Any:
                return _WatchedCache(value, keys_values) if isinstance(value, Cache) else value

            call.args = tuple(map(watched, args))
            call.kwargs = {name: watched(value) for name, value in kwargs.items()}
            call.keys_values = keys_values
            return call.args, call.kwargs

        return watch

    def entered(self, layer: int) -> Tensor:
        """Return the states (B, T, d) that a layer was last called with."""
        call = self._calls[layer]
        states: Tensor = call.kwargs["hidden_states"] if "hidden_states" in call.kwargs else call.args[0]
        return states

    def run(self, layers: Sequence[int], states: Tensor, sequences: Sequence[int], batch_size: int) -> Tensor:
        """Return what consecutive layers make of other states at the same positions.

        Args:
            layers: Their indices, ascending.
            states: What enters the first of them (S, T, d).
            sequences: Which sequences of the batch these are, ascending (S,).
            batch_size: B, the number of sequences in the batch.
        """
        some = None if len(sequences) == batch_size else torch.tensor(sequences, device=states.device)
        for layer in layers:
            call = self._calls[layer]
            if call.read_only is not None and some is None:
                args, kwargs = call.args, call.kwargs | {call.cache_name: call.read_only}
            else:
                args = tuple(_take_argument(value, some, batch_size, call.keys_values) for value in call.args)
                kwargs = {
                    name: _take_argument(value, some, batch_size, call.keys_values)
                    for name, value in call.kwargs.items()
                }
            if "hidden_states" in kwargs:
                kwargs["hidden_states"] = states
            else:
                args = (states, *args[1:])
            # `forward`, so that no hook sees this pass.
            states = get_residual_stream(self._decoder_layers[layer].forward(*args, **kwargs))
        return states


def _use_cache_that_keeps_all(call: _LayerCall, kwargs: dict[str, Any]) -> None:
    """Stop watching a cache, after a pass was watched, whose layer still has after an update all that this returned."""
    names = [name for name, value in kwargs.items() if isinstance(value, Cache)]
    has_others = any(isinstance(value, Mapping) for value in kwargs.values())
    if len(names) != 1 or has_others or any(isinstance(value, _WatchedCache) for value in call.args):
        return
    cache, (index, *more) = kwargs[names[0]], call.keys_values or {}
    keeps_all = type(cache).update is Cache.update and not cache.offloading and not more
    if keeps_all and type(cache.layers[index]) in (DynamicLayer, StaticLayer):
        call.cache_name, call.read_only, call.keys_values = names[0], _ReadOnlyCache(cache, None, None), None


def _take_argument(
    value: Any, sequences: Tensor | None, batch_size: int, keys_values: dict[int, tuple[Tensor, Tensor]] | None
) -> Any:
    """Return an argument of a layer for some sequences of the batch only; the layer may write to none of it."""
    if isinstance(value, _WatchedCache | Cache):
        return _ReadOnlyCache(value, keys_values, sequences)
    if isinstance(value, Mapping):  # such as keys and values that later layers share
        return {name: _take_argument(item, sequences, batch_size, keys_values) for name, item in value.items()}
    if sequences is None:
        return value
    if isinstance(value, torch.Tensor):
        # One dimension is positions, shared by all sequences; a leading 1 is shared too.
        return _take(value, sequences) if value.ndim > 1 and value.size(0) == batch_size else value
    if isinstance(value, tuple | list):
        return type(value)(_take_argument(item, sequences, batch_size, keys_values) for item in value)
    return value


def _take(tensor: Tensor, sequences: Tensor) -> Tensor:
    # Arguments come from wherever the layer before was, with weights on several devices.
    return tensor[sequences.to(tensor.device)]

"""Runs a decoder layer of vLLM without a trace in the KV cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def attention_names(layer: nn.Module) -> list[str]:
    """Return the names by which vLLM knows the attention inside a decoder layer."""
    from vllm.forward_context import get_forward_context

    known = get_forward_context().no_compile_layers
    names = [str(getattr(module, "layer_name", "")) for module in layer.modules()]
    return [name for name in names if name in known]


def cache_of(layer: nn.Module) -> list[Tensor]:
    """Return the tensors that hold the keys and values of a decoder layer."""
    from vllm.forward_context import get_forward_context

    known = get_forward_context().no_compile_layers
    caches: list[Any] = [known[name].kv_cache for name in attention_names(layer)]
    return [part for cache in caches for part in (cache if isinstance(cache, list | tuple) else [cache])]


@contextmanager
def without_cache_writes(layer: nn.Module) -> Iterator[None]:
    """Let the attention of a decoder layer read keys and values, and write none, inside the `with` block.

    It writes only where the pass has slots for it.
    """
    from vllm.forward_context import get_forward_context

    context = get_forward_context()
    slots: Any = context.slot_mapping
    names = attention_names(layer)
    context.slot_mapping = {name: slot for name, slot in slots.items() if name not in names}
    try:
        yield
    finally:
        context.slot_mapping = slots

"""Looks in between the decoder layers of a compiled model: by an operation that its graphs end at.

A graph has no branches, and what is done to states has many. vLLM cuts graphs at operations that it is told of, and
runs these by themselves, as it does with attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.vllm.starting import BETWEEN_LAYERS
from langnorm_vllm.layers import ResidualStream, run_trial, signature_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from vllm.config import VllmConfig

Visit = Callable[[int, "Tensor", "Tensor | None", "Tensor | None"], None]
"""Called with how many layers have been run, the hidden states and the residual that the last of them returned, which
it may write into, and the positions of the tokens."""

visit: ContextVar[Visit | None] = ContextVar("visit", default=None)
"""What is called in the pass under way; several engines may be run in one process, each on a thread of its own."""

_NAMESPACE, _, _NAME = BETWEEN_LAYERS.partition("::")
_LIBRARY = torch.library.Library(_NAMESPACE, "FRAGMENT")  # the operation lives as long as this


def _between_layers(hidden: Tensor, residual: Tensor | None, positions: Tensor | None, index: int) -> None:
    if called := visit.get():
        called(index, hidden, residual, positions)


_LIBRARY.define(f"{_NAME}(Tensor(a!) hidden, Tensor(b!)? residual, Tensor? positions, int index) -> ()")
_LIBRARY.impl(_NAME, _between_layers, "CompositeExplicitAutograd")
_LIBRARY._register_fake(_NAME, lambda *_: None)


def watch_boundaries(layers: nn.ModuleList, stream: ResidualStream) -> None:
    """Let `visit` be called before the first layer and after each one, for good: a graph keeps what it was made with.

    Args:
        layers: The decoder layers, before they are compiled.
        stream: How their residual stream is read.
    """
    names = [list(signature_of(layer).parameters) for layer in layers]
    layers[0].register_forward_pre_hook(partial(_before_first, names[0]), with_kwargs=True)
    for index, layer in enumerate(layers, start=1):
        layer.register_forward_hook(partial(_after, index, stream, names[index - 1]), with_kwargs=True)


def _before_first(names: Sequence[str], _layer: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    parts = [_argument(name, names, args, kwargs) for name in ("hidden_states", "residual", "positions")]
    torch.ops.langnorm.between_layers(*parts, 0)


def _after(
    index: int,
    stream: ResidualStream,
    names: Sequence[str],
    _layer: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    output: Any,
) -> None:
    residual = output[1] if stream.rule == "sum" else None
    positions = _argument("positions", names, args, kwargs)
    torch.ops.langnorm.between_layers(stream.hidden(output), residual, positions, index)


def _argument(name: str, names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return an argument of a call, or None where it has none of this name; in plain terms, which a graph can trace."""
    if name in kwargs:
        return kwargs[name]
    place = names.index(name) if name in names else len(args)
    return args[place] if place < len(args) else None


@torch.inference_mode()
def find_other_arguments(model: nn.Module, layers: nn.ModuleList, config: VllmConfig) -> list[Mapping[str, Any]] | None:
    """Return what each layer is called with beside states and positions, by name; None where tensors are among it.

    Those differ from pass to pass, and outside of a graph nobody knows them.
    """
    known = {"hidden_states", "residual", "positions"}
    found: list[Mapping[str, Any]] = []

    def note(layer: nn.Module, args: Any, kwargs: Any) -> None:
        bound = signature_of(layer).bind(*args, **kwargs)
        found.append({name: value for name, value in bound.arguments.items() if name not in known})

    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        run_trial(model, config)
    finally:
        for handle in handles:
            handle.remove()
    flat, _ = torch.utils._pytree.tree_flatten(found)
    return None if any(isinstance(value, torch.Tensor) for value in flat) else found

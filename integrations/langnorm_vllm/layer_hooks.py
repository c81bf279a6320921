"""The hooks on decoder layers that are called one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


class LayerHooks:
    """Those that the next pass needs, and no others: each takes its time, also where it does nothing.

    Args:
        layers: The decoder layers.
        note: Called with the index of a layer, it, its positional arguments, and what it returned.
        enter: Called before a layer with its index, it, and its arguments: positional ones, and those by name.
        act: Called after a layer with the same, and what it returned; returns what that is replaced by, or None.
    """

    def __init__(
        self, layers: nn.ModuleList, note: Callable[..., None], enter: Callable[..., None], act: Callable[..., Any]
    ) -> None:
        self._layers, self._note, self._enter, self._act = layers, note, enter, act
        self._handles: list[Any] = []
        self._noted: frozenset[int] = frozenset()
        self._is_acting = False

    def set(self, noted: frozenset[int], *, is_acting: bool) -> None:
        """Say what the next passes need.

        Args:
            noted: The layers after which `note` is called.
            is_acting: Whether `enter` and `act` are called instead, and of all layers.
        """
        if (noted, is_acting) == (self._noted, self._is_acting):
            return
        for handle in self._handles:
            handle.remove()
        self._handles, self._noted, self._is_acting = [], noted, is_acting
        for index, layer in enumerate(self._layers):
            if is_acting:
                self._handles.append(layer.register_forward_pre_hook(partial(self._enter, index), with_kwargs=True))
                self._handles.append(layer.register_forward_hook(partial(self._act, index), with_kwargs=True))
            elif index in noted:
                self._handles.append(layer.register_forward_hook(partial(self._note, index)))

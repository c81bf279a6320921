"""Tries out whether layers can be run again: does that repeat their first pass, and leave keys and values alone?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from langnorm_vllm.rerun import cache_of, without_cache_writes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from langnorm_vllm.layers import LayerCall, ResidualStream

_TOLERANCE = 2e-2  # relative, of bfloat16
_BLOCKS_AT_ONCE = 64


class RerunTrial:
    """What has come of running layers again in passes of a trial.

    Args:
        stream: How the residual stream of the layers is read.
    """

    def __init__(self, stream: ResidualStream) -> None:
        self._stream = stream
        self._differing: set[int] = set()
        self._writing: set[int] = set()
        self._tried: set[int] = set()

    def run(self, index: int, layer: nn.Module, call: LayerCall, entered: Tensor, states: Tensor) -> None:
        """Run a layer again, once as it was run and once otherwise.

        Args:
            index: Of the layer.
            layer: It.
            call: How it was called.
            entered: The stream (N, d) that entered it.
            states: The stream (N, d) that it put out.
        """
        self._tried.add(index)
        before = _sums(layer)
        with without_cache_writes(layer):
            again = self._stream.get(call.run(entered, None))
            # The same states would write the same keys: others show whether any are written.
            call.run(entered.roll(1, dims=-1), None)
        if not bool((again - states).float().norm() <= _TOLERANCE * states.float().norm()):
            self._differing.add(index)
        if _sums(layer) != before:
            self._writing.add(index)

    def describe(self) -> dict[str, Any]:
        """Return which layers were tried, which gave something else, and which wrote keys and values, ascending."""
        names = ("tried", "differing", "writing")
        return {name: sorted(getattr(self, f"_{name}")) for name in names}


def _sums(layer: nn.Module) -> list[float]:
    """Return what changes with the keys and values of a layer; in portions, for they may fill the memory."""
    return [
        float(portion.double().abs().sum() if portion.is_floating_point() else portion.long().sum())
        for cache in cache_of(layer)
        if isinstance(cache, torch.Tensor)
        for portion in cache.split(_BLOCKS_AT_ONCE)
    ]

"""Random numbers of a row that depend on its request, its seed and the moment, and on nothing else."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_BLOCK = 64  # steps that are drawn at once


def draw(seed: int, sample: int, kind: str, step: int, layer: int) -> float:
    """Return a number in [0, 1) for one row, decode step and layer, the same one whatever else is drawn."""
    return _draws(seed, sample, kind, step // _BLOCK, layer)[step % _BLOCK]


def _draws(seed: int, sample: int, kind: str, block: int, layer: int) -> list[float]:
    """Return the numbers of a block of steps: one hash for many steps costs little more than one for a single step."""
    digest = hashlib.shake_128(f"{seed}/{sample}/{kind}/{block}/{layer}".encode()).digest(8 * _BLOCK)
    return [(number >> 11) / 2**53 for number in struct.unpack(f"<{_BLOCK}Q", digest)]  # never rounded up to 1


class Chances:
    """Tells which rows are drawn, each with its own probability, for many steps at a time.

    Args:
        seeds: A (seed, sample) pair per row.
        probabilities: One per row.
        kind: What is drawn for.
        layer: The layer.
        device: Where the answers are needed.
    """

    def __init__(
        self,
        seeds: Sequence[tuple[int, int]],
        probabilities: Sequence[float],
        kind: str,
        layer: int,
        device: torch.device,
    ) -> None:
        self._rows = list(zip(seeds, probabilities, strict=True))
        self._kind, self._layer, self._device = kind, layer, device
        self._block = -1  # of the steps that have been drawn
        self._any: list[bool] = []  # per step of the block
        self._drawn: tuple[Tensor, ...] = ()  # per step (R,)

    def any(self, step: int) -> bool:
        """Return whether any row is drawn; the host knows."""
        self._reach(step // _BLOCK)
        return self._any[step % _BLOCK]

    def at(self, step: int) -> Tensor:
        """Return which rows are drawn (R,)."""
        self._reach(step // _BLOCK)
        return self._drawn[step % _BLOCK]

    def _reach(self, block: int) -> None:
        if block == self._block:
            return
        self._block = block
        by_row = [
            [number < chance for number in _draws(*seed, self._kind, block, self._layer)] for seed, chance in self._rows
        ]
        self._any = [any(are_drawn) for are_drawn in zip(*by_row, strict=True)]
        self._drawn = torch.tensor(by_row, device=self._device).unbind(dim=1)

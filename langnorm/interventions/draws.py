"""Random numbers of a row that depend on its request, its seed and the moment, and on nothing else."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_STEPS_AHEAD = 64  # steps that are drawn at once


def draw(seed: int, sample: int, kind: str, step: int, layer: int) -> float:
    """Return a number in [0, 1) for one row, decode step and layer, the same one whatever else is drawn."""
    digest = hashlib.blake2b(f"{seed}/{sample}/{kind}/{step}/{layer}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


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
        self._block = -1  # which `_STEPS_AHEAD` steps have been drawn
        self._any: list[bool] = []  # per step of the block
        self._drawn: tuple[Tensor, ...] = ()  # per step (R,)

    def any(self, step: int) -> bool:
        """Return whether any row is drawn; the host knows."""
        self._draw_until(step)
        return self._any[step % _STEPS_AHEAD]

    def at(self, step: int) -> Tensor:
        """Return which rows are drawn (R,)."""
        self._draw_until(step)
        return self._drawn[step % _STEPS_AHEAD]

    def _draw_until(self, step: int) -> None:
        block = step // _STEPS_AHEAD
        if block == self._block:
            return
        self._block = block
        table = [
            [draw(*seed, self._kind, number, self._layer) < chance for seed, chance in self._rows]
            for number in range(block * _STEPS_AHEAD, (block + 1) * _STEPS_AHEAD)
        ]
        self._any = [any(row) for row in table]
        self._drawn = torch.tensor(table, device=self._device).unbind()

"""Which rows of a batch are drawn, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from langnorm.interventions.draws import BLOCK, draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


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
        self._reach(step // BLOCK)
        return self._any[step % BLOCK]

    def at(self, step: int) -> Tensor:
        """Return which rows are drawn (R,)."""
        self._reach(step // BLOCK)
        return self._drawn[step % BLOCK]

    def _reach(self, block: int) -> None:
        if block == self._block:
            return
        self._block = block
        by_row = [
            [number < chance for number in draws(*seed, self._kind, block, self._layer)] for seed, chance in self._rows
        ]
        self._any = [any(are_drawn) for are_drawn in zip(*by_row, strict=True)]
        self._drawn = torch.tensor(by_row, device=self._device).unbind(dim=1)

"""Which states are shrunk, and how (arXiv 2606.06188)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from langnorm.interventions.chances import Chances
from langnorm.interventions.rows import Rows, maybe_any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from langnorm.interventions.options import Suppression
    from langnorm.interventions.plan import Plan

_PAYMENT = 0.25
"""Probability with which the control shrinks a state while it still owes one."""

_CLAMPED = 0.25
"""Share of the threshold to which `"clamp"` brings a norm down."""


class SuppressionRows(Rows):
    """The rows of a batch whose states are shrunk at one layer.

    Args:
        rows: Their numbers in the batch, ascending.
        plans: Their plans.
        seeds: Their (seed, sample) pairs.
        layer: The layer.
        states: Any states of the layer (B, d): for their number, device and type.
    """

    def __init__(
        self,
        rows: Sequence[int],
        plans: Sequence[Plan[Suppression]],
        seeds: Sequence[tuple[int, int]],
        layer: int,
        states: Tensor,
    ) -> None:
        device = states.device
        super().__init__(rows, states.size(0), device)
        options = [plan.options for plan in plans]
        are_random = [o.mode == "random" for o in options]
        self._chances = Chances(seeds, [_PAYMENT * is_random for is_random in are_random], "suppression", layer, device)
        self._tau = self.column(plan.threshold_at(layer) for plan in plans)
        self._factor = self.column(o.factor for o in options)
        self._is_random = torch.tensor(are_random, device=device)
        self._is_clamp = torch.tensor([o.action == "clamp" for o in options], device=device)
        self._debt = torch.zeros(len(rows), dtype=torch.int64, device=device)
        self._num_shrunk = torch.zeros_like(self._debt)

    def step(self, number: int, states: Tensor, norms: Tensor, is_running: Tensor) -> Tensor:
        """Return the states (B, d) after suppression, the same object where it is known that none was shrunk.

        Args:
            number: Of the decode step.
            states: Of this token (B, d).
            norms: Their norms (B,), float32.
            is_running: Which rows have not ended yet (B,).
        """
        norms = self.of(norms)
        is_high = norms > self._tau
        if not maybe_any(is_high | (self._debt > 0)):
            return states
        self._debt += (is_high & self._is_random).long()
        is_paid = (self._debt > 0) & self._chances.at(number)
        is_shrunk = torch.where(self._is_random, is_paid, is_high) & self.running(is_running)
        self._debt -= (is_shrunk & self._is_random).long()
        self._num_shrunk += is_shrunk.long()
        clamped = (_CLAMPED * self._tau / norms).clamp(max=1)
        factor = torch.where(self._is_clamp, clamped, self._factor).to(states.dtype)
        now = self.of(states)
        return self.put(states, torch.where(is_shrunk[:, None], factor[:, None] * now, now))

    def num_shrunk(self, row: int) -> int:
        """Return how many states of a row of the batch were shrunk."""
        return int(self._num_shrunk[self.places[row]])

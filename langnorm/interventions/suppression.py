"""Which states are shrunk, and how (arXiv 2606.06188)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from langnorm.interventions.options import Suppression
    from langnorm.interventions.plan import Plan

_PAYMENT = 0.25
"""Probability with which the control shrinks a state while it still owes one."""

_CLAMPED = 0.25
"""Share of the threshold to which `"clamp"` brings a norm down."""


class SuppressionRows:
    """The rows of a batch whose states are shrunk at one layer.

    Args:
        rows: Their numbers in the batch.
        plans: Their plans.
        layer: The layer.
        device: Where the layer's states are.
    """

    def __init__(
        self, rows: Sequence[int], plans: Sequence[Plan[Suppression]], layer: int, device: torch.device
    ) -> None:
        options = [plan.options for plan in plans]
        self.rows = torch.tensor(rows, device=device)
        self._tau = torch.tensor([plan.threshold_at(layer) for plan in plans], device=device)
        self._is_random = torch.tensor([o.mode == "random" for o in options], device=device)
        self._is_clamp = torch.tensor([o.action == "clamp" for o in options], device=device)
        self._factor = torch.tensor([float(o.factor) for o in options], device=device)
        self._debt = torch.zeros_like(self._tau)

    def step(self, states: Tensor, norms: Tensor, draws: Tensor, is_counted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states after suppression (R, d), and which of them were shrunk (R,).

        Args:
            states: Of this token (R, d).
            norms: Their norms (R,), float32.
            draws: Uniform in [0, 1) (R,), for the control.
            is_counted: Which rows have not ended yet (R,).
        """
        is_high = norms > self._tau
        self._debt += (is_high & self._is_random).float()
        is_paid = (self._debt > 0) & (draws < _PAYMENT)
        is_shrunk = torch.where(self._is_random, is_paid, is_high) & is_counted
        self._debt -= (is_shrunk & self._is_random).float()
        clamped = (_CLAMPED * self._tau / norms).clamp(max=1)
        factor = torch.where(self._is_clamp, clamped, self._factor).to(states.dtype)
        return torch.where(is_shrunk[:, None], factor[:, None] * states, states), is_shrunk

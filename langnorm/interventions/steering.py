"""When a state counts as slack, and what it is pulled toward (arXiv 2606.06188)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from langnorm.interventions.options import Steering
    from langnorm.interventions.plan import Plan


@dataclass(frozen=True, slots=True)
class Pulls:
    """What steering did at one step: whether each row was pulled (R,), and the cosine to what it was pulled to (R,)."""

    is_pulled: Tensor
    cosine: Tensor


class SteeringRows:
    """The rows of a batch that are steered at one layer, with what each remembers of its own states.

    Args:
        rows: Their numbers in the batch.
        plans: Their plans.
        layer: The layer.
        states: Any states of the layer (B, d): for their device, type and width.
    """

    def __init__(self, rows: Sequence[int], plans: Sequence[Plan[Steering]], layer: int, states: Tensor) -> None:
        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=states.device)  # (R,)

        options = [plan.options for plan in plans]
        self.rows = torch.tensor(rows, device=states.device)
        self._tau = column([plan.threshold_at(layer) for plan in plans])
        self._low = column([o.gamma for o in options]) * self._tau
        self._low_k = column([o.low_k for o in options])
        self._p_inject = column([o.p_inject for o in options])
        self._beta = column([o.beta for o in options]).to(states.dtype)[:, None]
        self._cos_min = column([o.cos_min for o in options])
        self._pause = column([o.cooldown for o in options])
        sizes = column([o.bank_size for o in options])
        size = max(o.bank_size for o in options)
        is_own = torch.arange(size, device=states.device) < sizes[:, None]  # (R, K)
        # Slots beyond a row's own bank hold a norm that no state exceeds.
        self._norms = torch.where(is_own, -math.inf, math.inf)
        self._bank = states.new_zeros(len(rows), size, states.size(-1))  # (R, K, d)
        self._streak = torch.zeros_like(self._tau)
        self._cooldown = torch.zeros_like(self._tau)
        self._places = torch.arange(len(rows), device=states.device)

    def step(self, states: Tensor, norms: Tensor, draws: Tensor, is_counted: Tensor) -> tuple[Tensor, Pulls]:
        """Return the states after steering, and what was done; nothing waits for the device.

        Args:
            states: Of this token (R, d).
            norms: Their norms (R,), float32.
            draws: Uniform in [0, 1) (R,).
            is_counted: Which rows have not ended yet (R,).
        """
        self._remember(states, norms)
        self._streak = torch.where(norms < self._low, self._streak + 1, 0.0)
        self._cooldown = (self._cooldown - 1).clamp(min=0)
        cosine, best = self._most_similar(states)
        is_slack = (self._streak >= self._low_k) & (self._cooldown == 0) & is_counted
        is_pulled = is_slack & (draws < self._p_inject) & (cosine >= self._cos_min)
        pulled = states + self._beta * (best - states)
        self._streak = torch.where(is_pulled, 0.0, self._streak)
        self._cooldown = torch.where(is_pulled, self._pause, self._cooldown)
        return torch.where(is_pulled[:, None], pulled, states), Pulls(is_pulled, cosine)

    def _remember(self, states: Tensor, norms: Tensor) -> None:
        """Put states of high norm into the bank, in place of the one of the least norm."""
        least, slot = self._norms.min(dim=1)
        is_kept = (norms > self._tau) & (norms > least)
        self._norms[self._places, slot] = torch.where(is_kept, norms, least)
        self._bank[self._places, slot] = torch.where(is_kept[:, None], states, self._bank[self._places, slot])

    def _most_similar(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the highest cosine to a state of the bank (R,), -inf for an empty one, and that state (R, d)."""
        bank, now = self._bank.float(), states.float()
        dots = (bank @ now[..., None])[..., 0]  # (R, K)
        lengths = torch.linalg.vector_norm(bank, dim=-1) * torch.linalg.vector_norm(now, dim=-1)[:, None]
        cosines = torch.where(self._norms.isfinite(), dots / lengths, -math.inf)
        cosine, slot = cosines.max(dim=1)
        return cosine, self._bank[self._places, slot]

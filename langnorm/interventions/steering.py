"""When a state counts as slack, and what it is pulled toward (arXiv 2606.06188)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from langnorm.interventions.chances import Chances
from langnorm.interventions.rows import Rows, maybe_any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from langnorm.interventions.options import Steering
    from langnorm.interventions.plan import Plan


class SteeringRows(Rows):
    """The rows of a batch that are steered at one layer, with what each remembers of its own states.

    Most steps change nothing, and cost a few comparisons: the bank is opened only for states of high norm and for rows
    that may be pulled. The streak and the cooldown of a row are kept as one number: the first step at which it may be
    pulled, if all its tokens until then are low. A token that is not low, or a pull, moves it further away.

    Args:
        rows: Their numbers in the batch, ascending.
        plans: Their plans.
        seeds: Their (seed, sample) pairs.
        layer: The layer.
        states: Any states of the layer (B, d): for their number, device, type and width.
    """

    def __init__(
        self,
        rows: Sequence[int],
        plans: Sequence[Plan[Steering]],
        seeds: Sequence[tuple[int, int]],
        layer: int,
        states: Tensor,
    ) -> None:
        device = states.device
        super().__init__(rows, states.size(0), device)
        options = [plan.options for plan in plans]
        self._chances = Chances(seeds, [o.p_inject for o in options], "steering", layer, device)
        self._tau = self.column(plan.threshold_at(layer) for plan in plans)
        self._low = self.column(o.gamma for o in options) * self._tau
        self._least = torch.minimum(self._tau, self._low)  # a norm below it is low and not high: nothing to note
        self._beta = self.column(o.beta for o in options).to(states.dtype)[:, None]
        self._cos_min = self.column(o.cos_min for o in options)
        self._low_k = torch.tensor([o.low_k for o in options], device=device)
        self._pause = torch.tensor([max(o.low_k, o.cooldown) for o in options], device=device)
        self._due = self._low_k - 1  # (R,) the first step at which a row may be pulled
        sizes = self.column(o.bank_size for o in options)
        size = max(o.bank_size for o in options)
        is_own = torch.arange(size, device=device) < sizes[:, None]  # (R, K)
        # Slots beyond a row's own bank hold a norm that no state exceeds.
        self._norms = torch.where(is_own, -math.inf, math.inf)
        self._bank = states.new_zeros(len(rows), size, states.size(-1))  # (R, K, d)
        self._slots = torch.arange(len(rows), device=device)
        self._pulls: list[tuple[int, Tensor]] = []  # step, and cosines (R,) as `_cosines` has them
        self._cosines: tuple[int, Tensor] | None = None  # for so many pulls (pulls, R), on the host

    def step(self, number: int, states: Tensor, norms: Tensor, is_running: Tensor) -> Tensor:
        """Return the states (B, d) after steering, the same object where it is known that none was pulled.

        Nothing waits for an accelerator.

        Args:
            number: Of the decode step.
            states: Of this token (B, d).
            norms: Their norms (B,), float32.
            is_running: Which rows have not ended yet (B,).
        """
        norms = self.of(norms)
        if maybe_any(norms >= self._least):
            self._remember(self.of(states), norms)
            is_low = norms < self._low
            self._due = torch.where(is_low, self._due, torch.maximum(self._due, self._low_k + number))
        if not self._chances.any(number):
            return states
        is_slack = self._chances.at(number) & (self._due <= number)
        if not maybe_any(is_slack):
            return states
        now = self.of(states)
        cosine, best = self._most_similar(now, norms)
        is_pulled = is_slack & (cosine >= self._cos_min) & self.running(is_running)
        self._due = torch.where(is_pulled, self._pause + number, self._due)
        self._pulls.append((number, torch.where(is_pulled, cosine, math.nan)))
        pulled = now + self._beta * (best - now)
        return self.put(states, torch.where(is_pulled[:, None], pulled, now))

    def _remember(self, states: Tensor, norms: Tensor) -> None:
        """Put states of high norm into the bank, in place of the one of the least norm."""
        least, slot = self._norms.min(dim=1)
        is_kept = (norms > self._tau) & (norms > least)
        self._norms[self._slots, slot] = torch.where(is_kept, norms, least)
        self._bank[self._slots, slot] = torch.where(is_kept[:, None], states, self._bank[self._slots, slot])

    def _most_similar(self, states: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
        """Return the highest cosine to a state of the bank (R,), -inf for an empty one, and that state (R, d)."""
        dots = (self._bank.float() @ states.float()[..., None])[..., 0]  # (R, K)
        cosines = torch.where(self._norms.isfinite(), dots / (self._norms * norms[:, None]), -math.inf)
        cosine, slot = cosines.max(dim=1)
        return cosine, self._bank[self._slots, slot]

    def pulls_of(self, row: int) -> list[tuple[int, float]]:
        """Return the step and the cosine of each pull of a row of the batch."""
        if not self._pulls:
            return []
        if self._cosines is None or self._cosines[0] != len(self._pulls):
            stacked = torch.stack([cosines for _, cosines in self._pulls])
            self._cosines = (len(self._pulls), stacked.cpu())  # once for all rows
        cosines = self._cosines[1][:, self.places[row]].tolist()
        found = zip(self._pulls, cosines, strict=True)
        return [(step, cosine) for (step, _), cosine in found if not math.isnan(cosine)]

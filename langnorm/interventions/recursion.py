"""Which tokens a layer is run for again, and which new states are taken (arXiv 2606.06188)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from langnorm.interventions.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from langnorm.interventions.options import Recursion
    from langnorm.interventions.plan import Plan

COUNTS = ("triggered", "passes", "accepted", "rejected_by_growth", "rejected_by_blowup",
          "rejected_by_threshold")  # fmt: skip
"""What is counted per layer: tokens whose norm was high, their extra passes, and what became of these."""


class RecursionRows(Rows):
    """The rows of a batch that recurse at one layer in blocks of the same length.

    Args:
        rows: Their numbers in the batch, ascending.
        plans: Their plans.
        layer: The layer.
        states: Any states of the layer (B, d): for their number and device.
    """

    def __init__(self, rows: Sequence[int], plans: Sequence[Plan[Recursion]], layer: int, states: Tensor) -> None:
        device = states.device
        super().__init__(rows, states.size(0), device)
        options = [plan.options for plan in plans]
        self._tau = self._beside_positions(plan.threshold_at(layer) for plan in plans)
        self._limit = self._beside_positions(o.blowup for o in options) * self._tau
        growth_eps = self._beside_positions(o.growth_eps for o in options)
        self._constants = torch.stack(
            [self._tau, self._limit, growth_eps, self._beside_positions(o.eps for o in options)]
        )  # (4, R, 1)
        self._alpha = self._beside_positions(o.alpha for o in options)
        self._counts = torch.zeros(len(COUNTS), len(rows), dtype=torch.int64, device=device)
        self.max_extra = self._beside_positions(o.max_extra for o in options)
        self.most_extra = max(o.max_extra for o in options)
        self.reads_prompt = torch.tensor([not o.only_decode for o in options], device=device)[:, None]
        self.any_reads_prompt = any(not o.only_decode for o in options)
        self.block = options[0].block

    def _beside_positions(self, values: Iterable[float]) -> Tensor:
        return self.column(values)[:, None]  # (R, 1)

    def high(self, norms: Tensor) -> Tensor:
        """Return which tokens have a high norm, `n > tau`, of norms (R, T). Those in bounds are run again."""
        return norms > self._tau

    def in_bounds(self, norms: Tensor) -> Tensor:
        """Return which tokens have no exploded norm, `n < blowup * tau`, of norms (R, T)."""
        return norms < self._limit

    def count_triggered(self, tokens: Tensor) -> None:
        """Count tokens (R, T) that are to be run again."""
        self._counts[0] += tokens.sum(dim=1)

    def decide(self, active: Tensor, before: Tensor, after: Tensor, some: Tensor) -> Tensor:
        """Return which new states are taken (S, T); their tokens stay active. All passes are counted.

        Args:
            active: Which tokens are active (S, T).
            before: Norms of their last computed pass (S, T).
            after: Norms of the new states (S, T).
            some: Which of the rows these are, as places in `rows` (S,).
        """
        tau, limit, growth_eps, eps = self._constants[:, some]  # each (S, 1)
        has_grown = active & ((after - before) / (before + eps) >= growth_eps)
        left = has_grown & (after < limit)
        accepted: Tensor = left & (after > tau)
        # Each is a part of the one before, so what they lose is what was rejected; in the order of COUNTS.
        outcomes = torch.stack([active, accepted, active ^ has_grown, has_grown ^ left, left ^ accepted])
        self._counts[1:].index_add_(1, some, outcomes.sum(dim=-1))
        return accepted

    def mixed(self, old: Tensor, new: Tensor, accepted: Tensor, some: Tensor) -> Tensor:
        """Return `(1 - alpha) * old + alpha * new` for accepted tokens and `old` for others, of states (S, T, d)."""
        alpha = self._alpha[some][..., None].to(old.dtype)
        # With alpha 1 the new state is taken as it is: 0 * old would be NaN where the old one is infinite.
        blend = torch.where(alpha == 1, new, (1 - alpha) * old + alpha * new)
        return torch.where(accepted[..., None], blend, old)

    def counts_of(self, row: int) -> dict[str, int]:
        """Return what was counted for a row of the batch, by the names of `COUNTS`."""
        return dict(zip(COUNTS, self._counts[:, self.places[row]].tolist(), strict=True))

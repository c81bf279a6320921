"""Which tokens a layer is run for again, and which new states are taken (arXiv 2606.06188)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from langnorm.interventions.options import Recursion
    from langnorm.interventions.plan import Plan

COUNTS = ("triggered", "passes", "accepted", "rejected_by_growth", "rejected_by_blowup",
          "rejected_by_threshold")  # fmt: skip
"""What is counted per layer: tokens whose norm was high, their extra passes, and what became of these."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of new states; each token that was active is in exactly one.

    Attributes:
        accepted: The new state is taken, and the token stays active.
        by_growth: The norm grew too little; the old state stands, as in the two below.
        by_blowup: The norm grew too much.
        by_threshold: The norm fell to the threshold.
    """

    accepted: Tensor
    by_growth: Tensor
    by_blowup: Tensor
    by_threshold: Tensor


class RecursionRows:
    """The rows of a batch that recurse at one layer in blocks of the same length.

    Args:
        rows: Their numbers in the batch.
        plans: Their plans.
        layer: The layer.
        device: Where the layer's states are.
    """

    def __init__(self, rows: Sequence[int], plans: Sequence[Plan[Recursion]], layer: int, device: torch.device) -> None:
        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None]  # (R, 1), beside positions

        options = [plan.options for plan in plans]
        self.rows = torch.tensor(rows, device=device)
        self.tau = column([plan.threshold_at(layer) for plan in plans])
        self.blowup = column([o.blowup for o in options]) * self.tau
        self.growth_eps = column([o.growth_eps for o in options])
        self.eps = column([o.eps for o in options])
        self.alpha = column([o.alpha for o in options])
        self.max_extra = column([o.max_extra for o in options])
        self.reads_prompt = torch.tensor([not o.only_decode for o in options], device=device)[:, None]
        self.most_extra = max(o.max_extra for o in options)
        self.any_reads_prompt = any(not o.only_decode for o in options)
        self.block = options[0].block

    def triggered(self, norms: Tensor) -> Tensor:
        """Return which tokens are run again: `tau < n < blowup * tau`, of norms (R, T)."""
        return (norms > self.tau) & (norms < self.blowup)

    def decide(self, active: Tensor, before: Tensor, after: Tensor, some: Tensor) -> Decision:
        """Return what becomes of the new states of active tokens.

        Args:
            active: Which tokens are active (S, T).
            before: Norms of their last computed pass (S, T).
            after: Norms of the new states (S, T).
            some: Which of the rows these are, as places in `rows` (S,).
        """
        growth = (after - before) / (before + self.eps[some])
        by_growth = active & ~(growth >= self.growth_eps[some])
        left = active & ~by_growth
        by_blowup = left & ~(after < self.blowup[some])
        left = left & ~by_blowup
        accepted = left & (after > self.tau[some])
        return Decision(accepted, by_growth, by_blowup, left & ~accepted)

    def mixed(self, old: Tensor, new: Tensor, accepted: Tensor, some: Tensor) -> Tensor:
        """Return `(1 - alpha) * old + alpha * new` for accepted tokens and `old` for others, of states (S, T, d)."""
        alpha = self.alpha[some][..., None].to(old.dtype)
        # With alpha 1 the new state is taken as it is: 0 * old would be NaN where the old one is infinite.
        blend = torch.where(alpha == 1, new, (1 - alpha) * old + alpha * new)
        return torch.where(accepted[..., None], blend, old)

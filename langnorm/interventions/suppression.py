"""Shrinks states of high norm, as many random ones, or those of a mask (arXiv 2606.06188)."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

from langnorm.interventions.random_draws import UniformDraws

if TYPE_CHECKING:
    from langnorm.interventions.options import Suppression
    from langnorm.interventions.plan import Plan

_REPAYMENT_PROBABILITY = 0.25
"""Probability with which the control shrinks a state while it still owes one."""

_CLAMPED_SHARE = 0.25
"""Share of the threshold to which `"clamp"` brings a norm down."""


class LayerSuppression:
    """The suppression of one sequence at one layer.

    The control owes one shrunk state for each high one, and shrinks states at random moments until it owes none. All
    that is remembered carries its step, so that it can be taken back.

    Args:
        plan: Of the request.
        layer: 0-based index of the decoder layer.
        seed: Of the request.
        sample: Number of the sequence among the samples of its request.
    """

    def __init__(self, plan: Plan[Suppression], layer: int, seed: int, sample: int) -> None:
        options: Suppression = plan.options
        self._options = options
        self.threshold = plan.new_threshold(layer) if options.compares_norms else None
        self._is_random = options.mode == "random"
        self._mask = frozenset(options.mask[plan.layers.index(layer)]) if options.mask is not None else None
        self._draws = UniformDraws(seed, sample, "suppression", layer)
        self._high_steps = array("q")  # of the control
        self._shrunk_steps = array("q")

    @property
    def num_shrunk(self) -> int:
        """Number of states that were shrunk."""
        return len(self._shrunk_steps)

    @property
    def acted_on(self) -> list[int]:
        """The tokens of the answer whose states were shrunk."""
        return [step for step in self._shrunk_steps if step >= 0]

    def act(self, step: int, norm: float) -> float | None:
        """Return by what a state is multiplied, or None where it stays; to be called once for each step.

        Args:
            step: Decode step.
            norm: Of the state.
        """
        tau = self.threshold.at(step, norm) if self.threshold else math.inf
        is_high = norm > tau
        if self._mask is not None:
            if step not in self._mask:
                return None
        elif self._is_random:
            if is_high:
                self._high_steps.append(step)
            num_owed = len(self._high_steps) - len(self._shrunk_steps)
            if num_owed == 0 or self._draws.at(step) >= _REPAYMENT_PROBABILITY:
                return None
        elif not is_high:
            return None
        self._shrunk_steps.append(step)
        if self._options.action == "mul":
            return self._options.factor
        return min(1.0, _CLAMPED_SHARE * tau / norm) if norm else 1.0

    def roll_back(self, step: int) -> None:
        """Forget this step and all after it."""
        if self.threshold:
            self.threshold.roll_back(step)
        for steps in (self._high_steps, self._shrunk_steps):
            del steps[bisect_left(steps, step) :]

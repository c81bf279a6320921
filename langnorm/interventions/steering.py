"""Pulls states that have gone slack toward earlier ones of high norm (ERSS, arXiv 2606.06188)."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import torch

from langnorm.interventions.random_draws import UniformDraws

if TYPE_CHECKING:
    from torch import Tensor

    from langnorm.interventions.options import Steering
    from langnorm.interventions.plan import Plan

NUM_UNDOABLE = 32
"""Number of high states that can be taken back, of positions that are computed again, without a loss: so many more
are kept than the bank needs."""


class _HighState(NamedTuple):
    """A state (d,) of high norm, by the decode step that it is of."""

    step: int
    norm: float
    state: Tensor
    descending: float  # what entries are sorted by: minus the norm


class LayerSteering:
    """The steering of one sequence at one layer, with what it remembers of its own states.

    Most steps change nothing, and cost two comparisons, with `least` and `due`. The streak and the cooldown are kept
    as one number, `due`: a token that is not low, or a pull, moves it further away. All that is remembered carries its
    step, so that it can be taken back.

    Args:
        plan: Of the request.
        layer: 0-based index of the decoder layer.
        seed: Of the request.
        sample: Number of the sequence among the samples of its request.
    """

    def __init__(self, plan: Plan[Steering], layer: int, seed: int, sample: int) -> None:
        options: Steering = plan.options
        self._options = options
        self._tau = plan.threshold_at(layer)
        self._low = options.gamma * self._tau
        self.least = min(self._tau, self._low)
        """A token whose norm is below this, before `due`, changes nothing: nothing of it is remembered either."""
        self._draws = UniformDraws(seed, sample, "steering", layer)
        self._pause = max(options.low_k, options.cooldown)
        self._high_states: list[_HighState] = []  # by norm, highest first
        self._dropped = -math.inf  # highest norm that had no place among these
        self._steps_not_low = array("q")
        self.pulls: list[tuple[int, float]] = []
        """Step and cosine of each pull."""
        self.due = options.low_k - 1
        """The first step at which the state may be pulled, if all tokens until then are low."""

    def act(self, step: int, norm: float, state: Tensor) -> Tensor | None:
        """Return what a state (d,) is replaced by, or None where it stays; to be called once for each step.

        Args:
            step: Decode step.
            norm: Of the state.
            state: Of the token (d,).
        """
        if norm > self._tau:
            self._remember(step, norm, state)
        if not norm < self._low:
            self._steps_not_low.append(step)
            self.due = max(self.due, step + self._options.low_k)
        if step < self.due or self._draws.at(step) >= self._options.p_inject or not self._high_states:
            return None
        cosine, target = self._most_similar(norm, state)
        if not cosine >= self._options.cos_min:
            return None
        self.pulls.append((step, cosine))
        self.due = step + self._pause
        return state + self._options.beta * (target - state)

    def _remember(self, step: int, norm: float, state: Tensor) -> None:
        capacity = self._options.bank_size + NUM_UNDOABLE
        is_full = len(self._high_states) == capacity
        if norm <= (self._high_states[-1].norm if is_full else self._dropped):
            self._dropped = max(self._dropped, norm)
            return
        if is_full:
            self._dropped = max(self._dropped, self._high_states.pop().norm)
        insort(self._high_states, _HighState(step, norm, state.clone(), -norm), key=attrgetter("descending"))

    def _most_similar(self, norm: float, state: Tensor) -> tuple[float, Tensor]:
        """Return the highest cosine to a state of the bank, and that state (d,)."""
        bank = self._high_states[: self._options.bank_size]
        dots = torch.stack([high.state for high in bank]).float() @ state.float()  # (K,)
        cosines = [
            dot / (high.norm * norm) if norm else math.nan for dot, high in zip(dots.tolist(), bank, strict=True)
        ]
        best = max(range(len(bank)), key=lambda i: -math.inf if math.isnan(cosines[i]) else cosines[i])
        return cosines[best], bank[best].state

    def roll_back(self, step: int) -> None:
        """Forget this step and all after it."""
        del self._steps_not_low[bisect_left(self._steps_not_low, step) :]
        del self.pulls[bisect_left(self.pulls, (step, -math.inf)) :]
        self._high_states = [high for high in self._high_states if high.step < step]
        if step <= 0:
            self._dropped = -math.inf
        self.due = self._options.low_k - 1
        if self._steps_not_low:
            self.due = max(self.due, self._steps_not_low[-1] + self._options.low_k)
        if self.pulls:
            self.due = max(self.due, self.pulls[-1][0] + self._pause)

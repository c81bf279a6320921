"""Pulls states toward earlier ones of high norm of the same sequence (ERSS, arXiv 2606.06188).

    best = the state of highest cosine to h in the bank, the `bank_size` highest norms of this sequence at this layer
    h <- h + beta * (best - h)    if that cosine is cos_min or more

At peaks, as the text of the paper has it, where n > tau; or as its code does it, where the norm has been below
gamma * tau for long.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
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


class Bank:
    """The states of highest norm of one sequence at one layer.

    Args:
        size: How many of them a state may be pulled toward.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._states: list[_HighState] = []  # by norm, highest first
        self._dropped = -math.inf  # highest norm that had no place among these

    @property
    def norms(self) -> list[float]:
        """Norms of the states that a state may be pulled toward, highest first."""
        return [high.norm for high in self._states[: self._size]]

    def add(self, step: int, norm: float, state: Tensor) -> None:
        """Keep a state (d,), unless others have higher norms."""
        capacity = self._size + NUM_UNDOABLE
        is_full = len(self._states) == capacity
        if norm <= (self._states[-1].norm if is_full else self._dropped):
            self._dropped = max(self._dropped, norm)
            return
        if is_full:
            self._dropped = max(self._dropped, self._states.pop().norm)
        insort(self._states, _HighState(step, norm, state.clone(), -norm), key=attrgetter("descending"))

    def most_similar(self, norm: float, state: Tensor) -> tuple[float, Tensor] | None:
        """Return the highest cosine to one of the states, and that one (d,); None while there is none.

        Args:
            norm: Of the state.
            state: It (d,).
        """
        bank = self._states[: self._size]
        if not bank:
            return None
        dots = torch.stack([high.state for high in bank]).float() @ state.float()  # (K,)
        cosines = [
            dot / (high.norm * norm) if norm else math.nan for dot, high in zip(dots.tolist(), bank, strict=True)
        ]
        best = max(range(len(bank)), key=lambda i: -math.inf if math.isnan(cosines[i]) else cosines[i])
        return cosines[best], bank[best].state

    def roll_back(self, step: int) -> None:
        """Forget the states of this step and of all after it."""
        self._states = [high for high in self._states if high.step < step]
        if step <= 0:
            self._dropped = -math.inf


class LayerSteering(ABC):
    """The steering of one sequence at one layer, with what it remembers of its own states.

    Most steps change nothing, and cost two comparisons, with `least` and `due`. All that is remembered carries its
    step, so that it can be taken back.

    Args:
        plan: Of the request.
        layer: 0-based index of the decoder layer.
    """

    def __init__(self, plan: Plan[Steering], layer: int) -> None:
        self._options: Steering = plan.options
        self.threshold = plan.new_threshold(layer)
        self.bank = Bank(self._options.bank_size)
        """The states toward which others are pulled."""
        self.pulls: list[tuple[int, float]] = []
        """Step and cosine of each pull."""
        self.least = self.threshold.least
        """A token whose norm is below this, before `due`, changes nothing: nothing of it is remembered either."""
        self.due = math.inf
        """The first step at which a state of low norm may be pulled, if all tokens until then are low."""

    @abstractmethod
    def act(self, step: int, norm: float, state: Tensor) -> Tensor | None:
        """Return what a state (d,) is replaced by, or None where it stays; to be called once for each step.

        Args:
            step: Decode step.
            norm: Of the state.
            state: Of the token (d,).
        """

    def _pull(self, step: int, norm: float, state: Tensor) -> Tensor | None:
        """Return the state (d,) on its way to the most similar one of the bank; None if none is similar enough."""
        found = self.bank.most_similar(norm, state)
        if found is None or not found[0] >= self._options.cos_min:
            return None
        cosine, target = found
        self.pulls.append((step, cosine))
        return state + self._options.beta * (target - state)

    def roll_back(self, step: int) -> None:
        """Forget this step and all after it."""
        self.threshold.roll_back(step)
        self.bank.roll_back(step)
        del self.pulls[bisect_left(self.pulls, (step, -math.inf)) :]


class PeakSteering(LayerSteering):
    """Pulls each state whose norm is high toward an earlier one; then it is kept too, as it was before the pull.

    Were it kept as it came out, the states of the bank would draw together with every pull.
    """

    def act(self, step: int, norm: float, state: Tensor) -> Tensor | None:
        """See the base class."""
        if not norm > self.threshold.at(step, norm):
            return None
        pulled = self._pull(step, norm, state)
        self.bank.add(step, norm, state)
        return pulled


class SlackSteering(LayerSteering):
    """Pulls a state after many tokens of low norm, at random.

    The streak and the cooldown are kept as one number, `due`: a token that is not low, or a pull, moves it further
    away. Tokens for which there is no threshold yet are neither high nor low.

    Args:
        plan: Of the request.
        layer: 0-based index of the decoder layer.
        seed: Of the request.
        sample: Number of the sequence among the samples of its request.
    """

    def __init__(self, plan: Plan[Steering], layer: int, seed: int, sample: int) -> None:
        super().__init__(plan, layer)
        options = self._options
        if plan.running is None:
            self.least = min(self.least, options.gamma * self.least)
        self._draws = UniformDraws(seed, sample, "steering", layer)
        self._pause = max(options.low_k, options.cooldown)
        self._steps_not_low = array("q")
        self.due = options.low_k - 1

    def act(self, step: int, norm: float, state: Tensor) -> Tensor | None:
        """See the base class."""
        tau = self.threshold.at(step, norm)
        if norm > tau:
            self.bank.add(step, norm, state)
        if tau == math.inf or not norm < self._options.gamma * tau:
            self._steps_not_low.append(step)
            self.due = max(self.due, step + self._options.low_k)
        if step < self.due or self._draws.at(step) >= self._options.p_inject:
            return None
        pulled = self._pull(step, norm, state)
        if pulled is not None:
            self.due = step + self._pause
        return pulled

    def roll_back(self, step: int) -> None:
        """Forget this step and all after it."""
        super().roll_back(step)
        del self._steps_not_low[bisect_left(self._steps_not_low, step) :]
        self.due = self._options.low_k - 1
        if self._steps_not_low:
            self.due = max(self.due, self._steps_not_low[-1] + self._options.low_k)
        if self.pulls:
            self.due = max(self.due, self.pulls[-1][0] + self._pause)


def steering_of(plan: Plan[Steering], layer: int, seed: int, sample: int) -> LayerSteering:
    """Return the steering of one sequence at one layer, with the trigger that its request asks for.

    Args:
        plan: Of the request.
        layer: 0-based index of the decoder layer.
        seed: Of the request.
        sample: Number of the sequence among the samples of its request.
    """
    if plan.options.trigger == "peak":
        return PeakSteering(plan, layer)
    return SlackSteering(plan, layer, seed, sample)

"""The threshold of one sequence at one layer: known beforehand, or running along with the sequence's own norms."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import Protocol

from langnorm.norms.sinks import SINK_FACTOR
from langnorm.norms.thresholds import RunningThreshold


class LayerThreshold(Protocol):
    """What an intervention compares the norms of one sequence at one layer with."""

    least: float
    """No token is compared with less; minus infinity where every token must be shown."""

    @property
    def last(self) -> float | None:
        """What the last token was compared with, or None if it was with nothing."""

    def at(self, step: int, norm: float) -> float:
        """Return `tau_l` for a token of the answer: to be called once for each step, in their order.

        Args:
            step: Decode step, from 0.
            norm: Of its state.

        Returns:
            A norm; infinite while there is nothing to go by.
        """

    def roll_back(self, step: int) -> None:
        """Forget this step and all after it."""


class KnownTau:
    """A threshold that was known before the request started.

    Args:
        tau: It.
    """

    def __init__(self, tau: float) -> None:
        self.least = self.last = tau

    def at(self, step: int, norm: float) -> float:  # noqa: ARG002 (of each token, which here makes no difference)
        """Return the threshold."""
        return self.least

    def roll_back(self, step: int) -> None:
        """Forget nothing."""


class RunningTau:
    """The threshold of a `RunningThreshold`: that of a token is of the norms before it, so that none lifts its own bar.

    Norms that are not finite are left out. Attention sinks, above `SINK_FACTOR` medians of all norms so far, are left
    out of the quartiles for as long as they are that; they are compared like others. Only `at` and `roll_back` change
    it, so that a step that was taken back leaves no trace.

    Args:
        rule: The rule.
    """

    least = -math.inf

    def __init__(self, rule: RunningThreshold) -> None:
        self._rule = rule
        # Of every step that was shown: the norm, and what it was compared with.
        self._steps, self._norms, self._taus = array("q"), array("d"), array("d")
        self._ascending: list[float] = []

    @property
    def last(self) -> float | None:
        """What the last token was compared with, or None if it was with nothing."""
        return self._taus[-1] if self._taus and self._taus[-1] != math.inf else None

    def at(self, step: int, norm: float) -> float:
        """Return the threshold of the norms before this one, and count this one for those that follow."""
        tau = self._tau()
        self._steps.append(step)
        self._norms.append(norm)
        self._taus.append(tau)
        if math.isfinite(norm):
            insort(self._ascending, norm)
        return tau

    def _tau(self) -> float:
        norms = self._ascending
        if len(norms) < self._rule.warm_up:
            return math.inf
        highest, num_norms = SINK_FACTOR * norms[(len(norms) - 1) // 2], len(norms)
        if norms[-1] > highest:
            num_norms = bisect_right(norms, highest)
        first, third = _quantile(norms, num_norms, 0.25), _quantile(norms, num_norms, 0.75)
        return third + self._rule.k * (third - first)

    def roll_back(self, step: int) -> None:
        """Forget this step and all after it."""
        start = bisect_left(self._steps, step)
        for norm in filter(math.isfinite, self._norms[start:]):
            del self._ascending[bisect_left(self._ascending, norm)]
        del self._steps[start:], self._norms[start:], self._taus[start:]


def _quantile(ascending: Sequence[float], length: int, q: float) -> float:
    """Return the q-quantile of the first `length` of some numbers, between two of them by linear interpolation."""
    place = q * (length - 1)
    below = int(place)
    above = min(below + 1, length - 1)
    return ascending[below] + (place - below) * (ascending[above] - ascending[below])

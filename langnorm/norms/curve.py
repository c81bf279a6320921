"""The norms of one layer as a histogram, and what it says of them.

Buckets have equal width in log space, after DDSketch (Masson, Rim and Lee 2019, arXiv 1908.10693).

All of this is numpy on the host. Each operation of torch lets other threads go first, so the messages of a batch, each
made by a thread of its own, would wait for each other at every one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ACCURACY = 0.01
"""Largest relative error of a quantile between `LOWEST` and `HIGHEST`."""

LOWEST, HIGHEST = 1e-6, 1e9
"""Norms up to the first and above the second share one bucket each."""

LOG_GAMMA = math.log((1 + ACCURACY) / (1 - ACCURACY))
"""Width of a bucket: the logarithm of the ratio of its edges."""

_NUM_INNER = math.ceil(math.log(HIGHEST / LOWEST) / LOG_GAMMA)
NUM_BUCKETS = _NUM_INNER + 2

_LOG_EDGES = math.log(LOWEST) + LOG_GAMMA * np.arange(-1.0, _NUM_INNER + 2)  # bucket i is above i, up to i + 1
_LOG_EDGES[0], _LOG_EDGES[-1] = -math.inf, math.inf
_FINITE = np.finfo(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """How the norms of one layer are distributed.

    Attributes:
        least: The least norm; infinity without norms.
        most: The greatest norm; minus infinity without norms.
        cumulative: Number of norms up to the upper edge of each bucket (buckets,), int64.
        knots: Logarithms of norms, ascending, from the least norm to the greatest one.
        levels: Which share of the norms is below each knot.
    """

    least: float
    most: float
    cumulative: NDArray[np.int64]
    knots: NDArray[np.float64]
    levels: NDArray[np.float64]

    @classmethod
    def of(cls, counts: NDArray[np.int64], least: float, most: float) -> Curve:
        """Return the curve of a histogram.

        Args:
            counts: Number of norms in each bucket (buckets,).
            least: The least norm; infinity without norms.
            most: The greatest norm; minus infinity without norms.
        """
        cumulative = counts.cumsum()
        filled = counts.nonzero()[0]
        ends = np.stack([_LOG_EDGES[filled], _LOG_EDGES[filled + 1]], axis=-1).flatten()
        shares = cumulative[filled] / max(1, cumulative[-1])
        knots = ends.clip(*_finite_log(np.array([least, most])))
        levels = np.stack([np.concatenate([[0.0], shares])[:-1], shares], axis=-1).flatten()
        return cls(least, most, cumulative, knots, levels)

    @property
    def count(self) -> int:
        """Number of norms."""
        return int(self.cumulative[-1])

    def quantile(self, q: float) -> float:
        """Return the norm at rank `floor(q * (count - 1))` of the sorted norms; NaN without norms."""
        last = self.count - 1
        if last < 0:
            return math.nan
        rank = math.floor(q * last)
        if rank == last:
            return self.most
        if rank == 0 or self.least == self.most:
            return self.least
        bucket = int(self.cumulative.searchsorted(rank, side="right"))
        low = max(math.exp(_LOG_EDGES[bucket]), self.least)
        high = min(math.exp(_LOG_EDGES[bucket + 1]), self.most)
        # The harmonic mean has the same relative error at either end of the bucket.
        value = 2 / (1 / low + 1 / high) if low else 0.0
        return min(max(value, self.least), self.most)

    def share_below(self, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return which share of the layer's norms is below each of the given ones; NaN for NaN and without norms."""
        if not self.count:
            return np.full_like(norms, math.nan)
        if self.knots[0] < self.knots[-1]:
            shares = np.interp(_finite_log(norms), self.knots, self.levels).clip(0, 1)
            return np.where(norms <= self.least, 0.0, np.where(norms >= self.most, 1.0, shares))
        middle = np.where(np.isnan(norms), math.nan, 0.5)
        return np.where(norms < self.least, 0.0, np.where(norms > self.most, 1.0, middle))


def _finite_log(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm, finite for 0 and infinity too: distances between their logarithms must not be NaN."""
    logs: NDArray[np.float64] = np.log(norms.clip(_FINITE.tiny, _FINITE.max))
    return logs

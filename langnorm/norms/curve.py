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

ACCURACY = 0.002
"""Largest relative error of a quantile between `LOWEST` and `HIGHEST`: by this share a bucket's upper edge is above its
lower one. The middle half of a late layer's norms may span no more than 8 % of their median, and what is above a
threshold is a fraction of a percent of them: buckets must be narrow to tell these norms apart."""

LOWEST, HIGHEST = 1e-6, 1e9
"""Norms up to the first and above the second share one bucket each."""

LOG_GAMMA = math.log1p(ACCURACY)
"""Width of a bucket: the logarithm of the ratio of its edges."""

_NUM_INNER = math.ceil(math.log(HIGHEST / LOWEST) / LOG_GAMMA)
NUM_BUCKETS = _NUM_INNER + 2

_LOG_EDGES = math.log(LOWEST) + LOG_GAMMA * np.arange(-1.0, _NUM_INNER + 2)  # bucket i is above i, up to i + 1
_LOG_EDGES[0], _LOG_EDGES[-1] = -math.inf, math.inf
_FINITE = np.finfo(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """How the norms of one layer are distributed: the share of norms below a norm, and the norm above a share.

    Within a bucket the share rises linearly with the logarithm of the norm, and each of the two is the other's inverse.

    Attributes:
        least: The least norm; infinity without norms.
        most: The greatest norm; minus infinity without norms.
        ranks: Number of norms up to the upper edge of each bucket that has any (filled,), int64, ascending.
        knots: Logarithms of the lower and the upper edge of each of these buckets (2 * filled,), ascending, from the
            least norm to the greatest one.
        levels: Which share of the norms is below each knot.
    """

    least: float
    most: float
    ranks: NDArray[np.int64]
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
        filled = counts.nonzero()[0]
        ranks = counts[filled].cumsum()
        ends = np.stack([_LOG_EDGES[filled], _LOG_EDGES[filled + 1]], axis=-1).flatten()
        knots = ends.clip(*_finite_log(np.array([least, most])))
        bounds = np.concatenate([[0], ranks])
        levels = np.stack([bounds[:-1], bounds[1:]], axis=-1).flatten() / max(1, bounds[-1])
        return cls(least, most, ranks, knots, levels)

    @property
    def count(self) -> int:
        """Number of norms."""
        return int(self.ranks[-1]) if len(self.ranks) else 0

    def quantile(self, q: float) -> float:
        """Return the norm below which a share `q` of the norms is; NaN without norms."""
        if not self.count:
            return math.nan
        if q <= 0 or self.least == self.most:
            return self.least
        if q >= 1:
            return self.most
        upper = 2 * int(self.levels[1::2].searchsorted(q)) + 1  # between two buckets: the end of the lower one
        knots, levels = self.knots[upper - 1 : upper + 1], self.levels[upper - 1 : upper + 1]
        value = math.exp(min(float(np.interp(q, levels, knots)), _LOG_MOST))
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


_LOG_MOST = math.log(float(_FINITE.max))

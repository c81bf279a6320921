"""A quantile of a stream without its samples."""

from __future__ import annotations

import copy
import math
from bisect import bisect_right, insort

from langnorm.checks import brief
from langnorm.errors import OptionError


class PSquare:
    """A quantile of a stream in constant memory: the P-square algorithm of Jain and Chlamtac (1985).

    Five markers stand at the minimum, the maximum, the quantile and halfway between; each new sample moves them by at
    most one rank, along a parabola through their neighbours.

    Args:
        q: Which quantile, above 0 and below 1.

    Raises:
        OptionError: `q` is not.
    """

    def __init__(self, q: float) -> None:
        if isinstance(q, bool) or not isinstance(q, int | float) or not 0 < q < 1:
            msg = f"`q={brief(q)}` is not allowed. Use a number above 0 and below 1."
            raise OptionError(msg)
        self.num_samples = 0
        self._heights: list[float] = []
        self._positions = [1, 2, 3, 4, 5]
        self._desired = [1, 1 + 2 * q, 1 + 4 * q, 3 + 2 * q, 5]
        self._increments = (0, q / 2, q, (1 + q) / 2, 1)

    @property
    def value(self) -> float | None:
        """The estimate, or None before five samples: the algorithm starts from these."""
        return self._heights[2] if len(self._heights) == 5 else None

    def add(self, x: float) -> None:
        """Take one sample. What is not finite is left out: it would never leave the markers."""
        if not math.isfinite(x):
            return
        self.num_samples += 1
        heights = self._heights
        if len(heights) < 5:
            insort(heights, x)
            return
        cell = min(max(bisect_right(heights, x), 1), 4)
        heights[0], heights[4] = min(heights[0], x), max(heights[4], x)
        for marker in range(cell, 5):
            self._positions[marker] += 1
        self._desired = [place + step for place, step in zip(self._desired, self._increments, strict=True)]
        for marker in (1, 2, 3):
            self._adjust(marker)

    def copy(self) -> PSquare:
        """Return a copy that further samples do not change."""
        return copy.deepcopy(self)

    def _adjust(self, i: int) -> None:
        """Move marker i towards its desired position, by one rank at most."""
        q, n = self._heights, self._positions
        offset = self._desired[i] - n[i]
        if offset >= 1 and n[i + 1] - n[i] > 1:
            d = 1
        elif offset <= -1 and n[i - 1] - n[i] < -1:
            d = -1
        else:
            return
        up, down = n[i + 1] - n[i], n[i] - n[i - 1]
        parabolic = q[i] + d / (up + down) * ((down + d) * (q[i + 1] - q[i]) / up + (up - d) * (q[i] - q[i - 1]) / down)
        is_between = q[i - 1] < parabolic < q[i + 1]
        q[i] = parabolic if is_between else q[i] + d * (q[i + d] - q[i]) / (n[i + d] - n[i])
        n[i] += d

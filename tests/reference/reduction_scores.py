"""The scores of distributions, updates and mean states as their formulas read: loops over lists of floats, no numpy.

Independent of langnorm on purpose.
"""

from __future__ import annotations

import cmath
import math
from fractions import Fraction


def average(values: list[float]) -> float:
    """Return the mean."""
    return math.fsum(values) / len(values)


def variance(values: list[float]) -> float:
    """Return the mean squared distance from the mean."""
    mean = average(values)
    return average([(value - mean) ** 2 for value in values])


def reference_consilience(top5: list[float]) -> float:
    """Return the confidence of the last fifth of the tokens less three times that of the first, rounded up."""
    num_tokens = math.ceil(Fraction(1, 5) * len(top5))
    first = [-value for index, value in enumerate(top5) if index < num_tokens]
    last = [-value for index, value in enumerate(top5) if index >= len(top5) - num_tokens]
    return average(last) - 3 * average(first)


def reference_settling(depths: list[float]) -> float:
    """Return the share of tokens that settle in the last 15 % of the depth."""
    return len([depth for depth in depths if depth >= 0.85]) / len(depths)


def count_instability(values: list[float], burst: float, rebound: float) -> float:
    """Return half the number of bursts, over 8 tokens, and of rebounds from the least value before."""
    events = 0
    for t, value in enumerate(values):
        if t >= 8 and value - values[t - 8] > burst:
            events += 1
        if t >= 1 and value - min(values[:t]) > rebound:
            events += 1
    return events / 2


def reference_edis(entropies: list[float]) -> float:
    """Return minus the instability of the entropy, in units of one nat, times one and its variance."""
    return -count_instability(entropies, 1.0, 1.0) * (1 + variance(entropies))


def reference_norm_bursts(norms: list[float]) -> float:
    """Return the same of the norms of one layer, in units of their standard deviation; they have no sinks any more."""
    spread = math.sqrt(variance(norms))
    if max(norms) - min(norms) <= 1e-9 * average(norms):
        return 0.0
    return -count_instability([norm / spread for norm in norms], 2.0, 3.0) * (1 + (spread / average(norms)) ** 2)


def window_confidences(top20: list[float]) -> list[float]:
    """Return the mean confidence of every 64 tokens in a row, or of all when there are fewer."""
    size = min(64, len(top20))
    return [-average(top20[start : start + size]) for start in range(len(top20) - size + 1)]


def reference_deepconf(top20: list[float]) -> tuple[float, float, float]:
    """Return the confidence of the least confident window, of the least confident tenth, and of the last 64 tokens."""
    ordered = sorted(window_confidences(top20))
    num_lowest = math.ceil(Fraction(1, 10) * len(ordered))
    return ordered[0], average(ordered[:num_lowest]), -average(top20[max(0, len(top20) - 64) :])


def angle(first: list[float], second: list[float]) -> float:
    """Return the angle between two vectors in radians, by Gram-Schmidt: the part along, and the part across."""
    length = math.hypot(*first)
    along = math.fsum(x / length * y for x, y in zip(first, second, strict=True))
    across = math.hypot(*[y - along * x / length for x, y in zip(first, second, strict=True)])
    return math.atan2(across, along)


def reference_chain(states: list[list[float]]) -> tuple[list[float], list[float]]:
    """Return the relative moves and turns from each mean state to the next."""
    whole, turn = math.dist(states[0], states[-1]), angle(states[0], states[-1])
    pairs = [(states[i], states[i + 1]) for i in range(len(states) - 1)]
    return [math.dist(g, h) / whole for g, h in pairs], [angle(g, h) / turn for g, h in pairs]


def reference_coe_r(states: list[list[float]]) -> float:
    """Return the mean move less the mean turn."""
    moves, turns = reference_chain(states)
    return average(moves) - average(turns)


def reference_coe_c(states: list[list[float]]) -> float:
    """Return the length of the mean of complex numbers whose lengths are moves and whose angles are turns."""
    moves, turns = reference_chain(states)
    numbers = [cmath.rect(move, turn) for move, turn in zip(moves, turns, strict=True)]
    return abs(complex(average([z.real for z in numbers]), average([z.imag for z in numbers])))


def reference_consensus(features: list[float]) -> list[float]:
    """Return minus the sum of squared distances of each of some numbers from all."""
    return [-math.fsum((one - other) ** 2 for other in features) for one in features]


def reference_borda(columns: list[list[float]], weights: list[float]) -> list[float]:
    """Return the weighted sum of points: one for oneself, one for each that is worse and half of one for each equal."""
    found = []
    for i in range(len(columns[0])):
        points = []
        for column, weight in zip(columns, weights, strict=True):
            worse = sum(1 for j, value in enumerate(column) if j != i and value < column[i])
            equal = sum(1 for j, value in enumerate(column) if j != i and value == column[i])
            points.append(weight * (1 + worse + equal / 2))
        found.append(math.fsum(points))
    return found

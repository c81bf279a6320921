"""Which responses stop early, as the documentation of `Pruning` reads: loops over lists.

Independent of langnorm on purpose. Scores are None for responses that cannot be scored; these are never stopped.
"""

from __future__ import annotations

import math
from fractions import Fraction


def reference_ranks(scores: list[float | None]) -> dict[int, int]:
    """Return how many are better than each response that has a score; of equals the first is better."""
    ranks = {}
    for number, score in enumerate(scores):
        if score is None:
            continue
        ranks[number] = 0
        for other, of_other in enumerate(scores):
            if of_other is not None and (of_other > score or (of_other == score and other < number)):
                ranks[number] += 1
    return ranks


def reference_quantile(values: list[float], quantile: float) -> Fraction:
    """Return the value at index quantile * (n - 1) of the sorted ones, on the line between its neighbours."""
    ordered = sorted(values)
    place = Fraction(quantile) * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below + (place - math.floor(place)) * (Fraction(above) - Fraction(below))


def reference_halved(scores: list[float | None], running: list[bool], least: int) -> list[int]:
    """Return which running responses are in the lower half, but for the `least` best of all."""
    stopped = []
    ranks = reference_ranks(scores)
    for number, rank in ranks.items():
        is_in_upper_half = rank < Fraction(len(ranks), 2)  # of an odd number, the one in the middle too
        if running[number] and not is_in_upper_half and rank >= least:
            stopped.append(number)
    return stopped


def reference_below(
    scores: list[float | None], running: list[bool], least: int, first: int, quantile: float
) -> list[int]:
    """Return which running responses are below the finished ones' quantile, once `first` have finished."""
    finished = []
    for score, is_running in zip(scores, running, strict=True):
        if score is not None and not is_running:
            finished.append(score)
    if len(finished) < first:
        return []
    threshold = reference_quantile(finished, quantile)
    stopped = []
    for number, rank in reference_ranks(scores).items():
        if running[number] and rank >= least and scores[number] < threshold:
            stopped.append(number)
    return stopped

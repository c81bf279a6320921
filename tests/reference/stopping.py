"""When samples suffice, as the documentation of `Stopping` reads: loops over lists and sums over small steps.

Independent of langnorm on purpose. An answer is None where it cannot be read; such a one is equal to no other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_NUM_STEPS = 4000  # of the integration; an even number


def reference_counts(votes: Sequence[str | None]) -> list[tuple[str, int]]:
    """Return the readable answers in the order of their first samples, with how many samples have each."""
    answers: list[str] = []
    for vote in votes:
        if vote is not None and vote not in answers:
            answers.append(vote)
    return [(answer, sum(vote == answer for vote in votes)) for answer in answers]


def reference_beta(votes: Sequence[str | None]) -> tuple[str, float] | None:
    """Return the most frequent answer and the mass of its share above one half, integrated numerically.

    The density of the share x of the first of two answers is x^v (1 - x)^w up to a factor, v and w being their counts.
    """
    counts = reference_counts(votes)
    if not counts:
        return None
    best = 0
    for number, (_, count) in enumerate(counts):
        if count > counts[best][1]:
            best = number
    others = [count for number, (_, count) in enumerate(counts) if number != best]
    others += [1 for vote in votes if vote is None]
    first, second = counts[best][1], max(others, default=0)

    def density(share: float) -> float:
        return share**first * (1 - share) ** second

    return counts[best][0], _integral(density, 0.5, 1.0) / _integral(density, 0.0, 1.0)


def _integral(function, start: float, end: float) -> float:
    """Return the integral by Simpson's rule."""
    width = (end - start) / _NUM_STEPS
    total = function(start) + function(end)
    for number in range(1, _NUM_STEPS):
        total += (4 if number % 2 else 2) * function(start + number * width)
    return total * width / 3


def reference_window(votes: Sequence[str | None], window: int) -> str | None:
    """Return the answer that all of the last window give, or None."""
    last = list(votes[len(votes) - window :])
    for vote in last:
        if vote is None or vote != last[0]:
            return None
    return last[0]


def reference_confidence(votes: Sequence[str | None], weights: Sequence[float]) -> dict[str, float]:
    """Return each readable answer's share of the masses: how many give it times how much these weigh."""
    masses = {}
    for answer, count in reference_counts(votes):
        masses[answer] = count * sum(w for vote, w in zip(votes, weights, strict=True) if vote == answer)
    alone = sum(w for vote, w in zip(votes, weights, strict=True) if vote is None)
    return {answer: mass / (sum(masses.values()) + alone) for answer, mass in masses.items()}


def reference_weights(scores: Sequence[float | None]) -> list[float]:
    """Return exp of each score in standard deviations from the mean; 1 for one that is missing, or where all agree."""
    known = [score for score in scores if score is not None]
    if not known:
        return [1.0] * len(scores)
    mean = math.fsum(known) / len(known)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in known) / len(known))
    return [1.0 if score is None or deviation == 0 else math.exp((score - mean) / deviation) for score in scores]

"""Statistics of evaluations: how well a score separates two groups, and how certain a mean is."""

from __future__ import annotations

from functools import cache
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_RESAMPLES = 4000
_QUANTILES = (0.025, 0.975)  # of a 95 % interval


class Interval(NamedTuple):
    """A mean and the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float


def auroc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Return the area under the ROC curve: how often a positive has a higher score than a negative.

    Ties count half (Mann-Whitney U over the number of pairs). Scores that are NaN are left out.

    Args:
        positives: Scores of the group that should have the higher ones.
        negatives: Scores of the other group.

    Returns:
        A probability: 1 where every positive is above every negative, 0.5 where the scores tell nothing, NaN where a
        group has no scores.
    """
    above, below = _without_nan(positives), np.sort(_without_nan(negatives))
    if not len(above) or not len(below):
        return float("nan")
    num_lower = np.searchsorted(below, above)
    num_not_higher = np.searchsorted(below, above, side="right")
    return float((num_lower + num_not_higher).sum() / (2 * len(above) * len(below)))


def bootstrap_mean(values: ArrayLike) -> Interval:
    """Return the mean of values and its 95 % bootstrap interval (percentiles of the means of resamples).

    The resamples are the same ones for every set of that many values, so the interval of the differences of two sets is
    a paired one, and the same values give the same interval. Values that are NaN are left out; without any, all three
    figures are NaN.
    """
    numbers = _without_nan(values)
    if not len(numbers):
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(_resample_weights(len(numbers)) @ numbers, _QUANTILES)
    return Interval(float(numbers.mean()), float(low), float(high))


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Return how probable a difference of two methods at least as large is, if both are equally good (exact test).

    Of the items on which they disagree, each would then be right with probability 1/2 (McNemar 1947, two-sided).

    Args:
        first: Whether one method was right, for each item.
        second: Whether the other was, for the same items.

    Returns:
        A probability; 1 where they never disagree.

    Raises:
        ValueError: The numbers of items differ.
    """
    is_right, other = np.asarray(first, dtype=bool).ravel(), np.asarray(second, dtype=bool).ravel()
    if len(is_right) != len(other):
        msg = f"The methods were compared on {len(is_right)} and {len(other)} items. Give the same items of both."
        raise ValueError(msg)
    num_better, num_worse = int((is_right & ~other).sum()), int((other & ~is_right).sum())
    num_different = num_better + num_worse
    num_in_tail = sum(comb(num_different, k) for k in range(min(num_better, num_worse) + 1))
    return min(1.0, num_in_tail / 2 ** (num_different - 1)) if num_different else 1.0


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """Return the correlation of two series of numbers; NaN where one of them never changes."""
    x, y = (np.asarray(values, dtype=np.float64) for values in (first, second))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else float("nan")


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Return the rank correlation of two series of numbers (ties have their mean rank); NaN where one never changes."""
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    _, places, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places.ravel()], dtype=np.float64)


@cache
def _resample_weights(num_values: int) -> NDArray[np.float64]:
    """Return the weight of each value in the mean of each resample (NUM_RESAMPLES, num_values)."""
    generator = np.random.default_rng(0)
    return generator.multinomial(num_values, np.full(num_values, 1 / num_values), NUM_RESAMPLES) / num_values


def _without_nan(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[~np.isnan(array)]

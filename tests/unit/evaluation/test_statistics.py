"""Statistics are what a plain implementation of their definitions gives."""

from __future__ import annotations

import math
import random
from itertools import product
from statistics import correlation, fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.evaluation.statistics import Interval, auroc, bootstrap_mean, mcnemar, pearson, spearman

SCORES = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6), st.just(math.nan)), max_size=12)


def plain_auroc(positives: list[float], negatives: list[float]) -> float:
    """Return the share of pairs in which the positive is higher, a tie being half a pair."""
    pairs = [(p, n) for p, n in product(positives, negatives) if not math.isnan(p) and not math.isnan(n)]
    return fmean(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) if pairs else math.nan


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_order(positives: list[float], negatives: list[float]) -> None:
    """Ties count half, NaN is left out, and without a pair the result is NaN."""
    assert auroc(positives, negatives) == pytest.approx(plain_auroc(positives, negatives), nan_ok=True)


def test_auroc_of_perfect_useless_and_reversed_scores() -> None:
    """The three values by which AUROC is read."""
    assert auroc([3, 4], [1, 2]) == 1
    assert auroc([1, 1], [1, 1, 1]) == 0.5
    assert auroc([1], [2]) == 0


def test_the_interval_is_that_of_a_plain_bootstrap() -> None:
    """Resampling value by value with another generator gives the same bounds, but for its own chance."""
    rng = random.Random(1)
    values = [rng.random() < 0.7 for _ in range(200)]
    means = sorted(fmean(rng.choices(values, k=len(values))) for _ in range(4_000))
    interval = bootstrap_mean(values)
    assert interval.mean == fmean(values)
    assert interval.low == pytest.approx(means[100], abs=0.01)
    assert interval.high == pytest.approx(means[-100], abs=0.01)


def test_intervals_of_as_many_values_share_their_resamples() -> None:
    """A constant shift moves the interval by itself, and the difference of equal sets is certain."""
    rng = random.Random(2)
    values = [rng.random() for _ in range(50)]
    interval = bootstrap_mean(values)
    assert bootstrap_mean(values) == interval
    assert bootstrap_mean([value + 1 for value in values]) == pytest.approx([bound + 1 for bound in interval])
    assert bootstrap_mean([0.0] * 50) == Interval(0, 0, 0)


def test_values_that_are_missing_are_left_out() -> None:
    """NaN changes nothing, and nothing but NaN gives NaN."""
    assert bootstrap_mean([1.0, math.nan, 3.0]) == bootstrap_mean([1.0, 3.0])
    assert all(math.isnan(bound) for bound in bootstrap_mean([math.nan]))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=9))
def test_mcnemar_is_the_share_of_coin_tosses_that_are_as_one_sided(pairs: list[tuple[bool, bool]]) -> None:
    """All ways in which the items on which two methods differ could have fallen, counted one by one."""
    differing = [one - other for one, other in pairs if one != other]
    as_one_sided = [abs(sum(signs)) >= abs(sum(differing)) for signs in product((1, -1), repeat=len(differing))]
    found = mcnemar([one for one, _ in pairs], [other for _, other in pairs])
    assert found == pytest.approx(fmean(as_one_sided))


def test_mcnemar_needs_the_same_items() -> None:
    """Methods are compared item by item."""
    with pytest.raises(ValueError, match="compared on 2 and 1 items. Give the same items"):
        mcnemar([True, False], [True])


NUMBERS = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=12)


@given(NUMBERS)
def test_correlations_are_those_of_their_definitions(pairs: list[tuple[int, int]]) -> None:
    """Of the numbers by the standard library, and of ranks, where equal ones share the mean of theirs."""
    first, second = ([float(pair[place]) for pair in pairs] for place in (0, 1))
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(pearson(first, second))
        assert math.isnan(spearman(first, second))
        return

    def ranks(values: list[float]) -> list[float]:
        return [sum(x < value for x in values) + (values.count(value) + 1) / 2 for value in values]

    assert pearson(first, second) == pytest.approx(correlation(first, second))
    assert spearman(first, second) == pytest.approx(correlation(ranks(first), ranks(second)))

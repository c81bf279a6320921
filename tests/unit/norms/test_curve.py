"""One layer's histogram, against the sorted norms themselves."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.norms.curve import ACCURACY, LOG_GAMMA, LOWEST, NUM_BUCKETS, Curve

norm = st.floats(-4, 6).map(lambda exponent: float(10.0**exponent))


def curve_of(values: list[float]) -> Curve:
    """Return the curve of some norms, counted one by one."""
    counts = np.zeros(NUM_BUCKETS, dtype=np.int64)
    for value in values:
        counts[math.ceil(math.log(value / LOWEST) / LOG_GAMMA)] += 1
    return Curve.of(counts, min(values, default=math.inf), max(values, default=-math.inf))


@given(st.lists(norm, min_size=1, max_size=60), st.floats(0, 1))
def test_a_quantile_has_the_rank_that_was_asked_for(values, q) -> None:
    """Within the accuracy of the buckets."""
    exact = np.quantile(values, q, method="inverted_cdf")
    assert curve_of(values).quantile(q) == pytest.approx(exact, rel=ACCURACY * (1 + 1e-9))


@given(st.lists(norm, min_size=1, max_size=60))
def test_shares_and_counts_agree_at_the_edges_of_buckets(values) -> None:
    """Between two norms that are far apart, the share is that of the lower ones."""
    curve = curve_of(values)
    ordered = sorted(values)
    for rank, (low, high) in enumerate(pairwise(ordered), start=1):
        if high > low * (1 + 5 * ACCURACY):
            between = np.array([math.sqrt(low * high)])
            assert curve.share_below(between)[0] == pytest.approx(rank / len(values), abs=1e-12)
    assert curve.count == len(values)


def test_within_a_bucket_the_share_rises_with_the_logarithm() -> None:
    """From the least norm to the greatest one, and not from edge to edge."""
    least, most = 1.0, 1.0005
    curve = curve_of([least, most])
    asked = np.exp(np.linspace(math.log(least), math.log(most), 5))
    assert len(curve.ranks) == 1
    assert curve.share_below(asked).tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert [curve.quantile(q) for q in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(asked.tolist())


@pytest.mark.parametrize("asked", [[0.0, 1.0, math.inf, math.nan], []])
def test_without_norms_nothing_is_known(asked) -> None:
    """NaN, in the shape that was asked."""
    curve = curve_of([])
    assert np.isnan(curve.share_below(np.array(asked))).tolist() == [True] * len(asked)
    assert math.isnan(curve.quantile(0.5))
    assert curve.count == 0


def test_norms_beyond_all_buckets_have_shares_too() -> None:
    """Zero, denormal numbers and huge ones are told apart where they are all there is."""
    counts = np.zeros(NUM_BUCKETS, dtype=np.int64)
    counts[0], counts[-1] = 1, 3
    shares = Curve.of(counts, 0.0, math.inf).share_below(np.array([0.0, 1.0, math.inf, math.nan]))
    np.testing.assert_array_equal(shares, [0.0, 0.25, 1.0, math.nan])
    tiny = Curve.of(counts * 0 + np.eye(1, NUM_BUCKETS, dtype=np.int64)[0] * 2, 5e-310, 1e-309)
    assert tiny.share_below(np.array([0.0, 7e-310, 2e-309])).tolist() == [0.0, 0.5, 1.0]

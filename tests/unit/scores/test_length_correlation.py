"""Which scores follow the lengths of responses, and how that is measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.scores.registry import SCORES, score_samples
from langnorm.scores.samples import Sample
from langnorm.scores.scaling import LENGTH_WARNING, length_correlation
from tests.reference.scores import reference_spearman
from tests.support.samples import reductions


@given(st.lists(st.tuples(st.integers(-3, 3) | st.floats(-3, 3), st.integers(1, 6)), min_size=3, max_size=12))
def test_correlation_with_length_is_spearmans(pairs: list[tuple[float, int]]) -> None:
    """Ties share the average of their ranks; without a difference there is no correlation."""
    scores, lengths = zip(*pairs, strict=True)
    reference = reference_spearman(list(scores), list(lengths))
    found = length_correlation(scores, lengths)
    assert (found is None) == (reference is None)
    assert found == (None if reference is None else pytest.approx(reference))


def test_correlation_leaves_out_what_has_no_score() -> None:
    """Two candidates say nothing: any two points are in line."""
    assert length_correlation([1.0, None, 2.0, 3.0], [30, 99, 20, 10]) == pytest.approx(-1)
    assert length_correlation([1.0, None, 2.0], [30, 99, 20]) is None
    assert length_correlation([], []) is None


@pytest.fixture(scope="module")
def alike() -> list[Sample]:
    """Return 400 responses of 40 to 800 tokens, whose tokens are drawn alike from two skewed distributions."""
    rng = np.random.default_rng(2606)
    found = []
    for num_rows in rng.integers(40, 800, size=400):
        rows = rng.lognormal(sigma=0.4, size=(num_rows, 2)) * [1000, 3000]
        steps = [(start, start + 20) for start in range(0, num_rows, 20)]
        logprobs = -rng.exponential(0.3, size=num_rows)
        texts = rng.choice(["7", "so"], size=num_rows).tolist()
        layers, thresholds = (21, 22), (1500, 4500)
        kept = reductions(rng, num_rows - 1, 2)
        relative = rng.normal(size=(num_rows - 1, 2)).tolist()
        found.append(
            Sample(rows[:-1].tolist(), layers, thresholds, (), steps, logprobs.tolist(), texts, kept, relative)
        )
    return found


@pytest.mark.parametrize("name", SCORES)
def test_only_length_robust_scores_ignore_length(name: str, alike: list[Sample]) -> None:
    """On tokens drawn alike, sums rank by length; means, shares and percentiles do not; minima fall with length."""
    rho = length_correlation(score_samples(name, alike), [len(one.norms) for one in alike])
    assert rho is not None
    if SCORES[name].is_length_robust:
        assert abs(rho) < 0.2
    elif name in ("sum", "area", "count", "late", "tail"):
        assert rho > LENGTH_WARNING
    else:
        assert rho < -0.2

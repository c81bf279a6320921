"""Several scores are one: standardised over the responses, weighted and added."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.errors import OptionError
from langnorm.scores.registry import SCORES, score_all, score_samples, weighted_scores
from langnorm.scores.samples import Sample
from langnorm.scores.scaling import standardised
from langnorm.scores.score import Score
from tests.reference.scores import reference_combined, reference_weighted
from tests.support.samples import sample, samples


def named(name: str, function: Callable[[Sample], Any]) -> Score:
    """Return a function as a score of this name."""
    return Score(name=name, function=function, needs_norms=False)


@given(
    st.lists(samples(num_layers=2), max_size=6),
    st.dictionaries(st.sampled_from([*SCORES]), st.floats(-3, 3), min_size=1, max_size=4),
)
def test_mixtures_are_sums_of_standardised_scores(drawn: list[Sample], weights: dict[str, float]) -> None:
    """Of those that all scores have; the parts are as they are alone."""
    found = score_all(weights, drawn)
    parts = {name: score_samples(name, drawn) for name in weights}
    assert found.parts == parts
    expected = reference_weighted(list(parts.values()), list(weights.values()))
    assert [score is None for score in found.scores] == [score is None for score in expected]
    for score, other in zip(found.scores, expected, strict=True):
        assert score is None or score == pytest.approx(other, abs=1e-6)


@given(st.lists(samples(num_layers=2), max_size=6), st.sampled_from([*SCORES]))
def test_a_score_without_weight_is_as_it_is(drawn: list[Sample], name: str) -> None:
    """Neither standardised nor weighted, unless it has a weight."""
    alone = score_all(name, drawn)
    assert alone.scores == score_samples(name, drawn)
    assert alone.parts == {name: alone.scores}
    known = [score for score in alone.scores if score is not None]
    weighted = [score for score in score_all({name: -2.0}, drawn).scores if score is not None]
    assert weighted == pytest.approx([-2 * z for z in standardised(known)])


def test_no_score_is_none_for_everyone() -> None:
    """There are no parts either."""
    found = score_all(None, [sample(1), sample(2)])
    assert (found.scores, found.parts) == ([None, None], {})
    assert score_all(None, []).scores == score_all("mean", []).scores == score_all({"mean": 1}, []).scores == []


def test_a_mixture_by_hand() -> None:
    """The second response has no log-probability that is finite: it has a part, and no score."""
    logprobs = [[-1.0], [-math.inf], [-3.0]]
    candidates = [sample(norm, logprobs=values) for norm, values in zip((1, 2, 3), logprobs, strict=True)]
    found = score_all({"mean": 1, "mean_logprob": 3.0}, candidates)
    assert found.scores == [2, None, -2]
    step = math.sqrt(1.5)
    assert found.parts == {"mean": pytest.approx([-step, 0, step]), "mean_logprob": [-1, None, -3]}


def test_a_weight_of_nothing_leaves_the_others() -> None:
    """But still a response that this score cannot score has none."""
    candidates = [sample(1, logprobs=[-1.0]), sample(2, logprobs=[-5.0]), sample(logprobs=[-1.0])]
    assert score_all({"mean": 1.0, "mean_logprob": 0.0}, candidates).scores == [-1, 1, None]


def test_functions_and_scores_have_weights() -> None:
    """Under their names."""

    def length(one: Sample) -> int:
        return len(one.norms)

    def first(one: Sample) -> Any:
        return one.norms[0][0]

    found = score_all({length: 1, named("negative", lambda one: -first(one)): 1}, [sample(1, 1), sample(2)])
    assert found.scores == [2, -2]
    assert found.parts == {"length": [2, 1], "negative": [-1, -2]}
    assert weighted_scores(length)[0][0].function is length


def test_letters_of_the_paper_have_weights() -> None:
    """Under the names that they stand for."""
    assert [(score.name, weight) for score, weight in weighted_scores({"A": 2, "rate": -0.5})] == [
        ("sum", 2.0),
        ("rate", -0.5),
    ]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"mean": math.nan}, "`mean=nan` of `score` is not allowed. Use a finite number"),
        ({"mean": math.inf}, "`mean=inf` of `score`"),
        ({"mean": True}, "`mean=True` of `score`"),
        ({"mean": "1"}, "`mean='1'` of `score`"),
        ({"mean": None}, "`mean=None` of `score`"),
        ({}, "names no score"),
        ({"meen": 1.0}, "There is no score `meen`.* Did you mean `mean`?"),
        ({"A": 1.0, "sum": 1.0}, "two weights for `sum`"),
        ({named("own", len): 1.0, named("own", abs): 1.0}, "two weights for `own`"),
        ({3: 1.0}, "There is no score `3`"),
        (["mean"], "There is no score"),
        ("meen", "Did you mean `mean`?"),
        (3, "There is no score `3`"),
    ],
)
def test_options_that_mean_no_score_are_refused(option: Any, message: str) -> None:
    """The error says what to use."""
    with pytest.raises(OptionError, match=message):
        weighted_scores(option)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
def test_standardised_values_are_z_scores(values: list[float]) -> None:
    """Of the population; their mean is 0 and their deviation 1, or all are 0."""
    found = standardised(values)
    assert found == pytest.approx(reference_combined([[value] for value in values]), abs=1e-6)
    if any(found):
        assert (np.mean(found), np.std(found)) == (pytest.approx(0, abs=1e-6), pytest.approx(1))


def test_values_without_spread_are_standardised_to_nothing() -> None:
    """Differences of rounding are no spread."""
    assert standardised([]) == []
    assert standardised([7.0]) == [0]
    assert standardised([0.3, 0.1 + 0.2]) == [0, 0]
    assert standardised([1.0, 3.0]) == [-1, 1]


@pytest.mark.parametrize("unit", [5e-324, 1e-200, 1e300])
def test_spread_of_any_size_is_standardised(unit: float) -> None:
    """Also where squares would be 0 or infinite."""
    assert standardised([0.0, 2 * unit]) == [-1, 1]


def test_responses_without_layers_have_no_score_of_norms() -> None:
    """Where norms were not recorded, there is nothing to standardise."""
    assert score_samples("mean", [Sample((), ()), Sample((), ())]) == [None, None]

"""Functions of the user's are scores: given as they are, or registered."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from langnorm.errors import OptionError
from langnorm.scores.formulas import lowest_window
from langnorm.scores.registry import SCORES, get_score, per_layer, register, score_samples
from langnorm.scores.samples import Sample
from tests.support.samples import sample


def test_functions_are_scores() -> None:
    """A number is used as it is; one number per layer is combined like a score of norms."""
    candidates = [sample(1, 2), sample(3, 4, 5)]
    assert score_samples(lambda one: len(one.norms), candidates) == [2, 3]
    assert score_samples(lambda one: one.rows.max(axis=0), candidates) == [-1, 1]
    assert score_samples(functools.partial(lowest_window, window=2), [sample(logprobs=[-1, -2, -4])]) == [-3]


def test_a_function_may_leave_a_response_out() -> None:
    """With None; the others are ranked, by one number or by layers."""
    candidates = [sample(1), sample(), sample(3)]
    assert score_samples(lambda one: one.rows.max(axis=0) if len(one.rows) else None, candidates) == [-1, None, 1]
    assert score_samples(lambda one: len(one.rows) or None, candidates) == [1, None, 1]
    assert score_samples(lambda _: None, candidates) == [None] * 3


@pytest.mark.parametrize("returned", [math.nan, math.inf, [1.0, 2.0], [[1.0]], [math.nan], "many", [None], {}])
def test_a_function_returns_finite_numbers(returned) -> None:
    """One, or one per layer; the error names the function."""

    def depth(one: Sample):
        return returned

    with pytest.raises(OptionError, match="The score `depth` returned .* None for a response"):
        score_samples(depth, [sample(1, 2)])


def test_functions_that_have_to_be_awaited_are_refused() -> None:
    """Before anything is computed."""

    async def later(one: Sample) -> float:
        return len(one.norms)

    with pytest.raises(OptionError, match="`score=.*later.*` is not allowed. Use a function that is not async"):
        get_score(later)


def test_a_function_returns_the_same_for_each_response() -> None:
    """Numbers for some and layers for others cannot be compared."""
    with pytest.raises(OptionError, match="L numbers for each"):
        score_samples(lambda one: 1.0 if len(one.norms) > 1 else [1.0], [sample(1), sample(1, 2)])


def test_names_are_registered_once() -> None:
    """Neither names nor letters are replaced, and what is listed cannot be changed."""
    listed = dict(SCORES)
    for name, alias in (("mean", None), ("A", None), ("new", "B"), ("new", "rate")):
        with pytest.raises(OptionError, match="already"):
            register(name, alias=alias)(len)
    with pytest.raises(TypeError):
        SCORES["mean"] = SCORES["rate"]  # type: ignore[index]
    assert dict(SCORES) == listed


def test_registered_functions_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what they need, the first line of their docstring and their letter."""
    monkeypatch.setattr("langnorm.scores.registry._scores", {})
    monkeypatch.setattr("langnorm.scores.registry._aliases", {})

    @register("peak", alias="P", is_length_robust=True)
    def peak(one: Sample) -> np.ndarray:
        """Highest norm.

        More.
        """
        return one.rows.max(axis=0)

    score = get_score("P")
    assert (score.name, score.summary, score.needs_norms, score.is_length_robust) == (
        "peak",
        "Highest norm.",
        True,
        True,
    )
    assert per_layer("peak", sample(1, 3)).tolist() == [3]

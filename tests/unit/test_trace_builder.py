"""A trace is built from norms, steps and what the norms mean; nothing is guessed and sinks count nowhere."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.norms.reading import NormReading
from langnorm.text.steps import StepSpan
from langnorm.trace_builder import build_trace
from tests.support.traces import READING, trace


def test_means_are_per_layer() -> None:
    """Norms of different layers are never averaged together."""
    assert trace().mean == (3.0, 30.0)
    assert trace().steps[0].mean == (2.0, 20.0)


def test_the_last_token_has_no_row() -> None:
    """A step with the last token takes the mean of its other tokens."""
    assert trace().steps[1].mean == (5.0, 50.0)


def test_a_step_without_rows_has_no_mean() -> None:
    """A mean of nothing is None, not NaN."""
    (step,) = build_trace(1, (9,), [], [StepSpan("answer", 0, 1, 0, 2)], NormReading(), keep_tokens=False).steps
    assert step.mean is None


def test_intensity_is_unknown_without_a_profile() -> None:
    """Nothing is guessed: intensity, low steps and low are None."""
    assert trace().intensity is None
    assert trace().low_steps is None
    assert trace().steps[0].low is None


def test_intensity_is_the_mean_percentile() -> None:
    """Of a step's tokens and layers; a step whose rank among steps is below the limit is low."""
    made = trace(READING)
    assert [step.intensity for step in made.steps] == [0.45, 0.07]
    assert [step.low for step in made.steps] == [False, True]
    assert made.low_steps == (1,)
    assert made.intensity == pytest.approx(1.94 / 6, abs=1e-6)


def test_the_limit_of_low_is_the_users() -> None:
    """A rank at the limit is not low."""
    lowest_of_19 = 0.5 / 19
    assert trace(replace(READING, low_below=lowest_of_19)).low_steps == ()
    assert trace(replace(READING, low_below=lowest_of_19 + 1e-9)).low_steps == (1,)
    assert trace(replace(READING, low_below=0.5)).low_steps == (0, 1)


def test_low_is_unknown_while_too_few_steps_are_known() -> None:
    """An intensity alone says nothing of that."""
    made = trace(replace(READING, other_steps=None))
    assert made.intensity is not None
    assert made.low_steps is None
    assert [step.low for step in made.steps] == [None, None]


def test_sinks_count_nowhere() -> None:
    """A sink is in no mean and no intensity, and a step of nothing else has neither."""
    made = trace(replace(READING, sinks=(0, 2)))
    assert made.mean == made.steps[0].mean == (3.0, 30.0)
    assert made.intensity == made.steps[0].intensity == 0.85
    assert (made.steps[1].mean, made.steps[1].intensity, made.steps[1].low) == (None, None, None)
    assert made.to_dict()["sinks"] == [0, 2]


@given(st.lists(st.floats(min_value=1e-20, max_value=1e20), min_size=1, max_size=5))
def test_rounding_keeps_all_that_float32_holds(values: list[float]) -> None:
    """Norms in a message differ from the measured ones by less than one part in a million."""
    rows = [[value] for value in values]
    kept = build_trace(len(values) + 1, (0,), rows, [], NormReading(), keep_tokens=True).token_norms
    assert kept is not None
    assert all(math.isclose(row[0], value, rel_tol=1e-6) for row, value in zip(kept, values, strict=True))

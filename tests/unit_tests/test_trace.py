"""A trace says what it measured, in plain JSON, and comes back from a message as it went in."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, messages_from_dict, messages_to_dict

from langnorm.errors import OptionError
from langnorm.steps import StepSpan
from langnorm.trace import KEY, NormTrace, build_trace

SPANS = [StepSpan("reasoning", 0, 2, 0, 5), StepSpan("answer", 2, 4, 0, 3)]
ROWS = [[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]]


def trace(*, keep_tokens: bool = False) -> NormTrace:
    """Return a trace of two layers and two steps."""
    return build_trace(4, (9, 10), ROWS, SPANS, keep_tokens=keep_tokens)


def test_means_are_per_layer() -> None:
    """Norms of different layers are never averaged together."""
    assert trace().mean == (3.0, 30.0)
    assert trace().steps[0].mean == (2.0, 20.0)


def test_the_last_token_has_no_row() -> None:
    """A step with the last token takes the mean of its other tokens."""
    assert trace().steps[1].mean == (5.0, 50.0)


def test_a_step_without_rows_has_no_mean() -> None:
    """A mean of nothing is None, not NaN."""
    (step,) = build_trace(1, (9,), [], [StepSpan("answer", 0, 1, 0, 2)], keep_tokens=False).steps
    assert step.mean is None


def test_intensity_is_unknown_without_a_profile() -> None:
    """Nothing is guessed: intensity, low steps and low are None."""
    assert trace().intensity is None
    assert trace().low_steps is None
    assert trace().steps[0].low is None


@pytest.mark.parametrize("keep_tokens", [False, True])
def test_a_message_gives_back_its_trace(keep_tokens: bool) -> None:
    """Through JSON and LangChain's serialisation, too."""
    made = trace(keep_tokens=keep_tokens)
    extra = {KEY: {"token_norms": [list(row) for row in made.token_norms]}} if made.token_norms else {}
    message = AIMessage(content="x", response_metadata={KEY: made.to_dict()}, additional_kwargs=extra)
    (again,) = messages_from_dict(json.loads(json.dumps(messages_to_dict([message]))))
    assert NormTrace.from_message(again) == made


def test_a_message_without_norms_is_refused() -> None:
    """The error says which messages have norms."""
    with pytest.raises(OptionError, match=r"carries no norms.*norms=\"steps\""):
        NormTrace.from_message(AIMessage(content="x"))


@given(st.lists(st.floats(min_value=1e-20, max_value=1e20), min_size=1, max_size=5))
def test_rounding_keeps_all_that_float32_holds(values: list[float]) -> None:
    """Norms in a message differ from the measured ones by less than one part in a million."""
    rows = [[value] for value in values]
    kept = build_trace(len(values) + 1, (0,), rows, [], keep_tokens=True).token_norms
    assert kept is not None
    assert all(math.isclose(row[0], value, rel_tol=1e-6) for row, value in zip(kept, values, strict=True))

"""Errors are caught by langnorm's base class and by the built-in class that fits."""

from __future__ import annotations

import pickle

import pytest
from langchain_core.messages import AIMessage

from langnorm import errors
from langnorm.errors import (
    LangNormError,
    MissingDependencyError,
    ModelError,
    OptionError,
    PromptError,
    WeakReasoningError,
    closest,
)


@pytest.mark.parametrize(
    ("error", "built_in"),
    [
        (OptionError, ValueError),
        (ModelError, RuntimeError),
        (PromptError, ValueError),
        (MissingDependencyError, ImportError),
        (WeakReasoningError, RuntimeError),
    ],
)
def test_error_is_caught_by_both_bases(error, built_in) -> None:
    """Each error is a `LangNormError` and the built-in error that callers expect."""
    msg = "what was given"
    with pytest.raises(LangNormError, match=msg):
        raise error(msg)
    with pytest.raises(built_in, match=msg):
        raise error(msg)


def test_every_error_has_a_docstring() -> None:
    """Each class of the hierarchy says in its docstring when it is raised."""
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, LangNormError)]

    assert len(classes) == 8
    assert all(vars(error)["__doc__"] for error in classes)


def test_a_weak_answer_is_not_lost_with_its_error() -> None:
    """`WeakReasoningError` carries the best message, also through a pickle."""
    error = WeakReasoningError("all weak", AIMessage("42"))

    assert str(error) == "all weak"
    assert pickle.loads(pickle.dumps(error)).message == AIMessage("42")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", " Did you mean `temperature`?"),
        ("Temperature", " Did you mean `temperature`?"),
        ("TOP_P", " Did you mean `top_p`?"),
        ("max_token", " Did you mean `max_tokens`?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_closest_names_the_nearest_option(name, hint) -> None:
    """A misspelt name gets the nearest allowed one, and a name that is far from all gets nothing."""
    assert closest(name, ["temperature", "top_p", "top_k", "max_tokens"]) == hint


def test_closest_takes_any_iterable_of_names() -> None:
    """The allowed names may be a generator, a mapping or nothing at all."""
    assert closest("layer", (name for name in ["layers"])) == " Did you mean `layers`?"
    assert closest("layer", {"layers": 1}) == " Did you mean `layers`?"
    assert closest("layer", []) == ""

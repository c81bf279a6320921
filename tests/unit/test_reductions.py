"""What was kept of a sequence is compared by its numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from langnorm.engines.requests import Completion, Record
from langnorm.errors import OptionError
from langnorm.reductions import Reductions, Updates
from tests.support.samples import reductions


def drawn(seed: int = 1) -> Reductions:
    """Returns something of every kind."""
    return reductions(np.random.default_rng(seed), num_rows=3, num_layers=2)


def test_equal_numbers_are_equal() -> None:
    """In arrays of their own; a number, a shape or a part that differs makes a difference."""
    assert drawn() == drawn()
    assert Reductions() == Reductions()
    assert Completion([1], ["a"], "stop", reductions=drawn()) == Completion([1], ["a"], "stop", reductions=drawn())
    others = [drawn(2), Reductions(), replace(drawn(), updates=None), replace(drawn(), mean_states=np.zeros((1, 7)))]
    for other in others:
        assert drawn() != other
        assert other != drawn()
    assert drawn() != "something else"
    assert drawn().updates != drawn().distribution


def test_updates_are_relative_to_what_they_are_added_to() -> None:
    """Of a state of length nothing they are infinite, or no number."""
    ones = np.ones((1, 3))
    updates = Updates(
        norms=np.array([[2.0, 2.0, 0.0]]),
        previous_norms=np.array([[4.0, 0.0, 0.0]]),
        layer_cosines=ones,
        token_cosines=ones,
    )
    np.testing.assert_array_equal(updates.relative, [[0.5, np.inf, np.nan]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Layers"),
        ({"norms": False}, "keeps nothing"),
        ({"norms": False, "layers": (1,)}, "keeps nothing"),
        ({"norms": False, "updates": True}, "Layers"),
        ({"norms": False, "prompt": True, "layers": (1,), "updates": True}, "leave `prompt` out"),
    ],
)
def test_a_record_keeps_something(fields: dict, message: str) -> None:
    """Of layers, where it is something of layers."""
    with pytest.raises(OptionError, match=message):
        Record(**fields)
    assert Record(norms=False, distribution=True).layers == ()
    assert Record(norms=False, mean_states=True, layers=(2,)).mean_states

"""Loops are found, and what only looks like one is not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.norms.loops import are_looping


@given(st.integers(1, 60), st.integers(4, 30), st.integers(0, 40), st.integers(0, 40))
def test_a_loop_is_found_from_its_second_round_on(period, times, before, after) -> None:
    """Wherever it is, however long its period, and whatever goes before and after it."""
    tokens = [f"a{i}" for i in range(before)] + list(range(period)) * times + [f"z{i}" for i in range(after)]
    repeated = (times - 1) * period if (times - 1) * period >= 24 else 0
    expected = [False] * (before + period) + [True] * repeated + [False] * after
    assert are_looping(tokens).tolist() == expected if repeated else not are_looping(tokens).any()


def test_a_loop_that_is_cut_off_is_one() -> None:
    """As most are: the limit of tokens falls into the middle of a round."""
    assert are_looping([*"banana, " * 20, *"bana"]).sum() == 8 * 19 + 4


@pytest.mark.parametrize(
    "text", ["", "a", "the cat and the dog and the bird", "......", "1 + 1 = 2, 2 + 2 = 4, 3 + 3 = 6"]
)
def test_what_is_no_loop_is_left_in(text) -> None:
    """Few tokens may repeat."""
    assert not are_looping(text.split(" ")).any()


def test_the_time_is_linear() -> None:
    """Four times as many tokens of a loop take about four times as long."""

    def seconds(times: int) -> float:
        tokens = ["a", "b", "c"] * times
        started = time.process_time()
        are_looping(tokens)
        return time.process_time() - started

    seconds(1000)
    assert seconds(40_000) < 12 * max(seconds(10_000), 1e-3)

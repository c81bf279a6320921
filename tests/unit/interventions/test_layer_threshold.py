"""The running threshold of a sequence, against quantiles that are computed anew for each token."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.interventions.layer_threshold import RunningTau
from langnorm.norms.thresholds import RunningThreshold
from tests.reference.interventions import Running

NORMS = st.floats(1e-3, 1e3) | st.integers(1, 4).map(float) | st.sampled_from([0.0, 1e5, math.inf, math.nan])
RULES = st.builds(RunningThreshold, k=st.sampled_from([0.0, 0.5, 1.5]), warm_up=st.sampled_from([1, 2, 5, 16]))


def taus_of(rule: RunningThreshold, norms: list[float]) -> list[float]:
    """Return what each of some norms is compared with by the oracle."""
    running = Running((0,), rule.k, rule.warm_up)
    return [running.compare(0, norm) for norm in norms]


@given(rule=RULES, norms=st.lists(NORMS, max_size=60))
def test_every_token_is_compared_with_those_before_it(rule: RunningThreshold, norms: list[float]) -> None:
    """Ties, norms that are not finite and attention sinks among them."""
    running = RunningTau(rule)
    assert [running.at(step, norm) for step, norm in enumerate(norms)] == pytest.approx(taus_of(rule, norms))


@given(rule=RULES, turns=st.lists(st.tuples(st.integers(0, 9), st.lists(NORMS, max_size=9)), max_size=12))
def test_steps_that_are_taken_back_leave_no_trace(rule: RunningThreshold, turns: list[tuple[int, list[float]]]) -> None:
    """Whatever is computed again or only guessed, the thresholds are those of the norms that stand."""
    running, norms, taus = RunningTau(rule), list[float](), list[float]()
    for back, more in turns:
        first = max(0, len(norms) - back)
        running.roll_back(first)
        del norms[first:], taus[first:]
        taus += [running.at(first + i, norm) for i, norm in enumerate(more)]
        norms += more
        assert taus == pytest.approx(taus_of(rule, norms))
        assert running.last == (taus[-1] if taus and taus[-1] < math.inf else None)
    running.roll_back(-7)  # all of it, and the prompt
    assert running.last is None
    assert running.at(0, 1.0) == math.inf


def test_the_formula_on_numbers_that_can_be_checked_by_hand() -> None:
    """Of 1 to 5: Q1 is 2, Q3 is 4, and the threshold 4 + 1.5 * 2."""
    running = RunningTau(RunningThreshold(warm_up=5))
    assert [running.at(step, norm) for step, norm in enumerate([3.0, 1.0, 5.0, 2.0, 4.0, 6.9])] == [math.inf] * 5 + [7]


def test_an_attention_sink_moves_no_threshold() -> None:
    """It is above the threshold itself, and those after it are compared as if it had not been there."""
    usual = np.random.default_rng(3).uniform(4, 6, size=40).tolist()
    with_sinks, plain = RunningTau(RunningThreshold()), RunningTau(RunningThreshold())
    with_sinks.at(0, 5000.0)
    step = 1
    for number, norm in enumerate(usual):
        found, expected = with_sinks.at(step, norm), plain.at(number, norm)
        assert found == expected or number < 16
        step += 1
        if number % 10 == 9:
            assert with_sinks.at(step, 900.0) < 900.0 or number < 16
            step += 1

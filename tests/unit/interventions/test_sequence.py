"""The report of a sequence says when an intervention did nothing, and why."""

from __future__ import annotations

from typing import Any

import pytest

from langnorm.interventions.options import Recursion, Steering, Suppression
from langnorm.interventions.plan import Plan, Plans
from langnorm.interventions.sequence import InterveningSequence
from langnorm.norms.thresholds import RunningThreshold

OPTIONS = (Recursion(threshold="iqr"), Steering(threshold="iqr"), Suppression(threshold="iqr"))


def report_of(thresholds: tuple[float, ...] | None, norms: tuple[float, ...] = ()) -> dict[str, Any]:
    """Return the report of a sequence of ten tokens under all interventions, with states that suppression saw."""
    plans = Plans(**{options.name: Plan(options, (3, 5), thresholds) for options in OPTIONS})  # type: ignore[arg-type]
    sequence = InterveningSequence(plans, seed=1, sample=0, num_prompt_tokens=4)
    for step, norm in enumerate(norms):
        sequence.suppression[5].act(step, norm)
    return sequence.report(10, 8)


@pytest.mark.parametrize("name", [options.name for options in OPTIONS])
def test_what_did_nothing_says_so(name: str) -> None:
    """It names the tokens, the layers and what to change."""
    warning = report_of((9.0, 9.0))[name]["warning"]
    assert f"`{name}` did nothing on 1" in warning
    assert "layers 3, 5" in warning
    assert "`threshold`" in warning


@pytest.mark.parametrize("name", [options.name for options in OPTIONS])
def test_without_thresholds_the_reason_is_another_one(name: str) -> None:
    """There is nothing to compare with, and the warning says how to get it."""
    assert "no thresholds yet. Give a `profile`" in report_of(None)[name]["warning"]


def test_what_did_something_has_no_warning() -> None:
    """One state is enough."""
    report = report_of((9.0, 9.0), norms=(1.0, 10.0))
    assert report["suppression"]["warning"] is None
    assert report["suppression"]["suppressed"] == {"3": 0, "5": 1}
    assert report["suppression"]["acted_on"] == {"3": [], "5": [1]}


def test_a_mask_that_met_no_token_says_so() -> None:
    """It needs no thresholds, and reports none."""
    options = Suppression(mode="mask", layers=[3], mask=[[7, 2]])
    sequence = InterveningSequence(Plans(suppression=Plan(options, (3,), None)), seed=1, sample=0, num_prompt_tokens=4)
    assert "none of its mask was run" in sequence.report(1, 8)["suppression"]["warning"]
    assert [sequence.suppression[3].act(step, 1.0) for step in range(4)] == [None, None, 0.1, None]
    report = sequence.report(4, 8)["suppression"]
    assert report == {"warning": None, "thresholds": None, "suppressed": {"3": 1}, "acted_on": {"3": [2]}}


def running_report(num_tokens: int) -> dict[str, Any]:
    """Return the report of a sequence with running thresholds, of norms 1, 2 and 3 again and again."""
    rule = RunningThreshold(warm_up=4)
    plans = Plans(
        Plan(Recursion(threshold=rule), (3,), None), suppression=Plan(Suppression(threshold=rule), (3,), None)
    )
    sequence = InterveningSequence(plans, seed=1, sample=0, num_prompt_tokens=2)
    for step in range(num_tokens):
        norm = 1.0 + step % 3
        sequence.recursion[3].threshold_of(step, norm)
        sequence.suppression[3].act(step, norm)
    return sequence.report(num_tokens, 8)


def test_a_running_threshold_is_reported_as_the_last_token_met_it() -> None:
    """Of 1, 2, 3, 1, 2: the quartiles are 1 and 2."""
    report = running_report(6)
    assert report["suppression"]["thresholds"] == report["recursion"]["thresholds"] == {"3": 3.5}
    assert "no norm was above its threshold" in report["suppression"]["warning"]


def test_an_answer_that_ends_before_there_is_a_threshold_says_so() -> None:
    """With the number of tokens that it takes."""
    report = running_report(4)
    assert report["recursion"]["thresholds"] is None
    assert "its running threshold starts after 4 tokens of the answer" in report["recursion"]["warning"]

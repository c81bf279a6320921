"""The report of a sequence says when an intervention did nothing, and why."""

from __future__ import annotations

from typing import Any

import pytest

from langnorm.interventions.options import Recursion, Steering, Suppression
from langnorm.interventions.plan import Plan, Plans
from langnorm.interventions.sequence import InterveningSequence

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

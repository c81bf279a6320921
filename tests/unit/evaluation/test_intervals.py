"""Intervals as text."""

from __future__ import annotations

import json
import math

import pytest

from langnorm.evaluation.intervals import (
    UNKNOWN,
    Figures,
    change,
    figure,
    higher_or_lower,
    percent,
    points,
    read_interval,
    with_bounds,
)
from langnorm.evaluation.statistics import Interval

NOTHING = Interval(math.nan, math.nan, math.nan)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (with_bounds(Interval(0.5, 0.25, 1)), "0.500 (0.250 to 1.000)"),
        (with_bounds(Interval(1234.5, 0.00012, 7), ".4g"), "1234 (0.00012 to 7)"),
        (with_bounds(Interval(0.5, -0.25, 0.75), "+.2f"), "+0.50 (-0.25 to +0.75)"),
        (with_bounds(Interval(0.276, 0.247, 0.306), ".1f", times=100, unit=" %"), "27.6 % (24.7 to 30.6)"),
        (percent(Interval(0.527, 0.475, 0.578)), "52.7% (47.5% to 57.8%)"),
        (points(Interval(-0.016, -0.05, 0.012)), "-1.6 (-5.0 to +1.2)"),
        (points(Interval(0.016, 0, 0.05), " points"), "+1.6 points (+0.0 to +5.0)"),
        (change(Interval(0.043, 0.026, 0.061)), "+4.3 % (+2.6 to +6.1)"),
        (higher_or_lower(Interval(0.1, 0.05, 0.2)), "10.0% higher (5.0% to 20.0%)"),
        (higher_or_lower(Interval(-0.1, -0.2, -0.05)), "10.0% lower (5.0% to 20.0%)"),
        (higher_or_lower(Interval(-0.1, -0.2, 0.05)), "10.0% lower (-5.0% to 20.0%, which may be chance)"),
    ],
)
def test_each_form(text: str, expected: str) -> None:
    """The mean comes first, with its unit."""
    assert text == expected


@pytest.mark.parametrize("stored", [[0.5, 0.25, 0.75], {"high": 0.75, "mean": 0.5, "low": 0.25}])
def test_intervals_from_json_are_read(stored: Figures) -> None:
    """Whether they were stored by name or as a list."""
    assert read_interval(json.loads(json.dumps(stored))) == Interval(0.5, 0.25, 0.75)


@pytest.mark.parametrize("empty", [NOTHING, [None] * 3, {"mean": None, "low": None, "high": None}])
def test_an_interval_without_values_says_so(empty: Figures) -> None:
    """In every form; so does a number that is none."""
    assert (figure(math.nan, "+.2f"), figure(0.5, "+.2f")) == (UNKNOWN, "+0.50")
    for form in (with_bounds, percent, points, change):
        assert form(empty) == UNKNOWN
    assert higher_or_lower(empty).startswith("not comparable")

"""Intervals as text: a mean, and the bounds of its 95 % interval in brackets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from langnorm.evaluation.statistics import Interval

Figures = Sequence[float | None] | Mapping[str, float | None]
"""An `Interval`, or what JSON makes of one: a list, or an object by name, with null for what is no number."""

UNKNOWN = "–"
"""What stands for an interval without values, and for a number that is none."""


def read_interval(figures: Figures) -> Interval:
    """Return an interval; NaN where JSON has null."""
    values = [figures[name] for name in Interval._fields] if isinstance(figures, Mapping) else figures
    return Interval(*(math.nan if value is None else value for value in values))


def figure(value: float, form: str) -> str:
    """Return a number in some format."""
    return UNKNOWN if math.isnan(value) else format(value, form)


def with_bounds(figures: Figures, form: str = ".3f", *, times: float = 1, unit: str = "") -> str:
    """Return an interval in some format: `"0.512 (0.480 to 0.540)"`.

    Args:
        figures: The interval.
        form: Format of each of its numbers.
        times: What each is multiplied by.
        unit: What stands behind the mean.
    """
    interval = read_interval(figures)
    if math.isnan(interval.mean):
        return UNKNOWN
    mean, low, high = (format(times * value, form) for value in interval)
    return f"{mean}{unit} ({low} to {high})"


def percent(figures: Figures) -> str:
    """Return a share: `"51.2% (48.0% to 54.0%)"`."""
    return with_bounds(figures, ".1%")


def points(figures: Figures, unit: str = "") -> str:
    """Return a difference of shares in points, with its sign: `"+1.2 (-0.5 to +2.9)"`."""
    return with_bounds(figures, "+.1f", times=100, unit=unit)


def change(figures: Figures) -> str:
    """Return a relative difference, with its sign: `"+1.2 % (-0.5 to +2.9)"`."""
    return points(figures, " %")


def higher_or_lower(figures: Figures) -> str:
    """Return a relative difference in words, as they come before "than": `"1.2% higher (0.5% to 1.9%)"`.

    Where the interval holds zero, it says so.
    """
    interval = read_interval(figures)
    if math.isnan(interval.mean):
        return "not comparable (no problem has both)"
    sign, word = (1, "higher") if interval.mean >= 0 else (-1, "lower")
    low, high = sorted((sign * interval.low, sign * interval.high))
    certain = "" if low > 0 else ", which may be chance"
    return f"{sign * interval.mean:.1%} {word} ({low:.1%} to {high:.1%}{certain})"

"""How large norms are, from 0 to 1: what is behind a colour or a bar outside of pages."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from langnorm.trace import NormTrace

Word = Literal["intensity", "rank"]
"""What a heat is: an intensity, or, where nothing is known to compare with, a rank among the others of the answer."""


def step_heats(trace: NormTrace) -> tuple[list[float | None], Word]:
    """Return how large the norms of each step are, and what that is; None for a step without norms."""
    if trace.intensity is not None:
        return [step.intensity for step in trace.steps], "intensity"
    if trace.token_norms is None:
        return ranks([step.mean for step in trace.steps]), "rank"
    tokens = token_heats(trace)
    known = [[heat for heat in tokens[step.start : step.end] if heat is not None] for step in trace.steps]
    return [fmean(heats) if heats else None for heats in known], "rank"


def token_heats(trace: NormTrace) -> list[float | None]:
    """Return how large the norms of each of the T tokens are: mean percentile or, without one, mean rank.

    Attention sinks and the last token, which was never run, have None.
    """
    rows: Sequence[Sequence[float]] = trace.token_norms or ()
    sinks = set(trace.sinks)
    if trace.token_percentiles is not None:
        heats = [None if i in sinks else fmean(row) for i, row in enumerate(trace.token_percentiles)]
    else:
        heats = ranks([None if i in sinks else row for i, row in enumerate(rows)])
    return [*heats, *[None] * (trace.tokens - len(heats))]


def ranks(rows: Sequence[Sequence[float] | None]) -> list[float | None]:
    """Return which share of the others is below each row, mean over its columns; equal ones count half.

    Args:
        rows: Norms with one column per layer; None stays None.
    """
    known = [row for row in rows if row is not None]
    columns = [sorted(column) for column in zip(*known, strict=True)]

    def share(column: list[float], value: float) -> float:
        return (bisect_left(column, value) + bisect_right(column, value)) / 2 / len(column)

    return [None if row is None else fmean(map(share, columns, row)) for row in rows]

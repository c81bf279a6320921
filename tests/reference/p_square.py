"""P-square as its paper reads: Jain and Chlamtac, "The P2 algorithm for dynamic calculation of quantiles", CACM 1985.

Independent of langnorm on purpose: markers are dicts numbered from 1, and each step of the paper's box 1 is spelt out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Marker = dict[str, Any]
"""Its height q, its position n, its desired position n' and the increment dn' of that."""


def p_square(samples: Iterable[float], p: float) -> list[float | None]:
    """Return the estimate of the p-quantile after each sample, None for the first four."""
    first_five: list[float] = []
    markers: dict[int, Marker] = {}
    estimates: list[float | None] = []
    for sample in samples:
        if not markers:
            first_five.append(sample)
            if len(first_five) == 5:
                markers = initial_markers(first_five, p)
        else:
            observe(markers, sample)
        estimates.append(markers[3]["q"] if markers else None)
    return estimates


def reference_thresholds(
    rows: Sequence[Sequence[float]], *, k: float, min_iqr: float, floor: float, warm_up: int
) -> list[tuple[float, ...] | None]:
    """Return `max(floor, Q3 + k * max(min_iqr, Q3 - Q1))` of each column after each row, None during the warm-up."""
    columns = list(zip(*rows, strict=True))
    quartiles = [(p_square(column, 0.25), p_square(column, 0.75)) for column in columns]
    thresholds: list[tuple[float, ...] | None] = []
    for number in range(len(rows)):
        if number + 1 < max(warm_up, 5):
            thresholds.append(None)
            continue
        row = []
        for q1, q3 in quartiles:
            spread = q3[number] - q1[number]
            if spread < min_iqr:
                spread = min_iqr
            tau = q3[number] + k * spread
            row.append(tau if tau > floor else floor)
        thresholds.append(tuple(row))
    return thresholds


def initial_markers(first_five: list[float], p: float) -> dict[int, Marker]:
    """Return the markers after step A, the initialisation."""
    heights = sorted(first_five)
    desired = [1, 1 + 2 * p, 1 + 4 * p, 3 + 2 * p, 5]
    increments = [0, p / 2, p, (1 + p) / 2, 1]
    return {i: {"q": heights[i - 1], "n": i, "n'": desired[i - 1], "dn'": increments[i - 1]} for i in (1, 2, 3, 4, 5)}


def observe(markers: dict[int, Marker], x: float) -> None:
    """Do step B for one sample."""
    # B.1: find the cell k with q_k <= x < q_{k+1}, and adjust the extreme values.
    if x < markers[1]["q"]:
        markers[1]["q"] = x
        k = 1
    elif x < markers[2]["q"]:
        k = 1
    elif x < markers[3]["q"]:
        k = 2
    elif x < markers[4]["q"]:
        k = 3
    elif x <= markers[5]["q"]:
        k = 4
    else:
        markers[5]["q"] = x
        k = 4
    # B.2: increment the positions of the markers k+1 to 5, and the desired positions of all.
    for i, marker in markers.items():
        if i > k:
            marker["n"] += 1
        marker["n'"] += marker["dn'"]
    # B.3: adjust the heights of the markers 2 to 4 where necessary.
    for i in (2, 3, 4):
        left, marker, right = markers[i - 1], markers[i], markers[i + 1]
        distance = marker["n'"] - marker["n"]
        if distance >= 1 and right["n"] - marker["n"] > 1:
            move(left, marker, right, +1)
        elif distance <= -1 and left["n"] - marker["n"] < -1:
            move(left, marker, right, -1)


def move(left: Marker, marker: Marker, right: Marker, d: int) -> None:
    """Move a marker by one position: along the parabola if that keeps the heights in order, else along the line.

    The operations come in the order of the paper's formulas, so that results can be compared bit by bit.
    """
    rise, run = right["q"] - marker["q"], right["n"] - marker["n"]
    fall, gap = marker["q"] - left["q"], marker["n"] - left["n"]
    parabolic = marker["q"] + d / (right["n"] - left["n"]) * ((gap + d) * rise / run + (run - d) * fall / gap)
    if left["q"] < parabolic < right["q"]:
        marker["q"] = parabolic
    else:
        towards = right if d == 1 else left
        marker["q"] += d * (towards["q"] - marker["q"]) / (towards["n"] - marker["n"])
    marker["n"] += d

"""Puts the scores of the candidates for one prompt on a common scale, and compares their order with that of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from langnorm.scores.samples import FloatArray

LENGTH_WARNING = 0.8
"""Above this |rho| of `length_correlation`, a score ranks by length more than by anything else."""

# Candidates that differ by less than this share of the largest value differ by rounding only.
_SPREAD_TOLERANCE = 1e-9


def standardised(values: Sequence[float]) -> list[float]:
    """Return the z-scores of some values (population standard deviation), 0 where all are the same."""
    column = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    return [] if not len(column) else standardised_columns(column)[:, 0].tolist()


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of some values (of the population)."""
    scaled, exponent = _scaled(np.asarray(values, dtype=np.float64))
    return float(np.ldexp(scaled.std(), exponent))


def length_correlation(scores: Sequence[float | None], lengths: Sequence[int]) -> float | None:
    """Return Spearman's rho between the scores of the candidates for one prompt and their lengths.

    Candidates without a score are left out. Ties share the average of their ranks.

    Returns:
        -1 to 1, or None where it says nothing: fewer than three scores (two are always in line), or all scores or all
        lengths the same.
    """
    pairs = [(value, length) for value, length in zip(scores, lengths, strict=True) if value is not None]
    if len(pairs) < 3:
        return None
    ranked = np.stack([ranks(column) for column in zip(*pairs, strict=True)])
    return None if (np.ptp(ranked, axis=1) == 0).any() else float(np.asarray(np.corrcoef(ranked))[0, 1])


def ranks(numbers: Sequence[float]) -> FloatArray:
    """Return the ranks from 1, that of the least, ties averaged."""
    values = np.asarray(numbers, dtype=np.float64)
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2


def standardised_columns(table: FloatArray) -> FloatArray:
    """Return the z-scores of each column, 0 where its values are the same."""
    table, _ = _scaled(table)
    has_spread = np.ptp(table, axis=0) > _SPREAD_TOLERANCE * np.abs(table).max(axis=0)
    return np.where(has_spread, table - table.mean(axis=0), 0) / np.where(has_spread, table.std(axis=0), 1)


def _scaled(table: FloatArray) -> tuple[FloatArray, NDArray[np.int32]]:
    """Return each column of some values in units of a power of two, and which: up to 1, of which squares can be taken.

    The squares of tiny values would be 0, those of huge ones infinite.
    """
    exponents = np.frexp(np.abs(table).max(axis=0))[1]
    return np.ldexp(table, -exponents), exponents

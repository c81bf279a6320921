"""What the norms of one sequence mean: which tokens are sinks, which norms are high, and how high they all are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langnorm.norms.baseline import LOW_BELOW, ONLINE, Baseline, NormSource
from langnorm.norms.reference_estimator import ReferenceEstimator
from langnorm.norms.sinks import sinks_by_medians
from langnorm.norms.step_ranks import IntensityKind, rank_among
from langnorm.norms.thresholds import ReferenceThreshold
from langnorm.norms.token_table import FARTHEST, shares_below

_PERCENTILE_DIGITS = 4
_DISTANCE_DIGITS = 3


@dataclass(frozen=True, slots=True)
class NormReading:
    """The norms of one sequence of T tokens, read against a baseline.

    Attributes:
        intensities: Of each of the T - 1 rows the mean over layers of how high its norms are, 0 to 1: their percentile
            among all norms of the layer, or Phi(z) of their distance z from the usual norm of their token (see
            `TokenTable`); None where there is nothing to compare with.
        sinks: Indices of the rows that are attention sinks; they count nowhere else.
        thresholds: One per layer, at the end of the sequence; None while the rule has nothing to go by.
        trigger_rate: Share of the rows above the threshold, one per layer; None together with `thresholds`.
        source: What the norms were compared with.
        low_below: Rank among steps below which a step is low.
        intensity_kind: Which of the two `intensities` are.
        other_steps: Intensities of other steps of the model, ascending; None while there are too few.
    """

    intensities: tuple[float, ...] | None = None
    sinks: tuple[int, ...] = ()
    thresholds: tuple[float, ...] | None = None
    trigger_rate: tuple[float, ...] | None = None
    source: str | None = None
    low_below: float = LOW_BELOW
    intensity_kind: IntensityKind = "layer"
    other_steps: tuple[float, ...] | None = None

    def is_low(self, intensity: float | None) -> bool | None:
        """Return whether a step of this intensity is low; None while there is nothing to compare it with."""
        if intensity is None or self.other_steps is None:
            return None
        return rank_among(intensity, self.other_steps) < self.low_below


@dataclass(frozen=True, slots=True)
class TokenReading:
    """The norms of single tokens, read against a baseline: a row for each that was run, one number per layer.

    Attributes:
        percentiles: Share of the layer's norms that are below the token's, 0 to 1; None where there is no distribution.
        distances: The distance z from the usual norm of the same token (see `TokenTable`); None where none is known.
    """

    percentiles: tuple[tuple[float, ...], ...] | None = None
    distances: tuple[tuple[float, ...], ...] | None = None


def read_tokens(
    norms: Sequence[Sequence[float]], layers: Sequence[int], baseline: Baseline, token_ids: Sequence[int]
) -> TokenReading:
    """Return what the norms of single tokens mean; of the rows of a sequence, any that follow each other will do.

    Args:
        norms: Rows with one norm per layer.
        layers: 0-based indices of the recorded layers.
        baseline: What they are compared with; it stays as it is.
        token_ids: The tokens of these rows; more of them do no harm.
    """
    values = np.array(norms, dtype=np.float64).reshape(len(norms), len(layers))
    distribution, table = baseline.distribution, baseline.tokens
    return TokenReading(
        percentiles=None if distribution is None else _rows(distribution.percentile(values), _PERCENTILE_DIGITS, 1.0),
        distances=None if table is None else _rows(table.relative(token_ids, values), _DISTANCE_DIGITS, FARTHEST),
    )


def _rows(values: NDArray[np.float64], digits: int, greatest: float) -> tuple[tuple[float, ...], ...]:
    """Return values as messages carry them, which know no NaN: that of a state that overflowed is the greatest."""
    rounded = np.nan_to_num(values.round(digits), nan=greatest) + 0.0  # no -0.0 either
    return tuple(map(tuple, rounded.tolist()))


def read_norms(
    norms: Sequence[Sequence[float]], layers: Sequence[int], baseline: Baseline, token_ids: Sequence[int] = ()
) -> NormReading:
    """Return what norms mean.

    Args:
        norms: T - 1 rows with one norm per layer.
        layers: 0-based indices of the recorded layers.
        baseline: What they are compared with; it stays as it is.
        token_ids: The T tokens, where intensities are relative to them.
    """
    values = np.array(norms, dtype=np.float64).reshape(len(norms), len(layers))
    distribution = baseline.distribution
    are_sinks = sinks_by_medians(values, None if distribution is None else distribution.quantile(0.5))
    rows = values[~are_sinks]
    thresholds, triggered = baseline.thresholds, None
    if baseline.estimator is not None:
        thresholds, triggered = _follow(baseline.estimator.copy(), rows)
    elif thresholds is not None:
        triggered = rows > np.array(thresholds)
    return NormReading(
        intensities=_intensities(values, baseline, token_ids),
        sinks=tuple(are_sinks.nonzero()[0].tolist()),
        thresholds=thresholds,
        trigger_rate=tuple(triggered.mean(axis=0).tolist()) if triggered is not None and len(rows) else None,
        source=baseline.source,
        low_below=baseline.low_below,
        intensity_kind=baseline.intensity,
        other_steps=baseline.steps,
    )


def _intensities(values: NDArray[np.float64], baseline: Baseline, token_ids: Sequence[int]) -> tuple[float, ...] | None:
    """Return how high the norms of each row are, or None where there is nothing to compare with."""
    if baseline.intensity == "token":
        shares = None if baseline.tokens is None else shares_below(baseline.tokens.relative(token_ids, values))
    else:
        shares = None if baseline.distribution is None else baseline.distribution.percentile(values)
    return None if shares is None else tuple(shares.mean(axis=-1).tolist())


def learn_norms(
    source: NormSource,
    norms: Sequence[Sequence[float]],
    layers: Sequence[int],
    baseline: Baseline,
    sinks: Sequence[int],
    steps: Sequence[float],
) -> None:
    """Learn from an answer that was kept: its steps, and where the threshold rule has a state, all of its norms.

    Steps that were measured by a profile are of another measure than those with which what comes is compared.

    Args:
        source: The model that gave the answer.
        norms: T - 1 rows with one norm per layer.
        layers: 0-based indices of the recorded layers.
        baseline: What the answer was read against.
        sinks: Indices of the rows that are attention sinks.
        steps: The intensities of its steps.
    """
    if steps and baseline.source == ONLINE:
        source.statistics.learn_steps(baseline.intensity, layers, steps)
    if isinstance(baseline.rule, ReferenceThreshold):
        rows = [row for i, row in enumerate(norms) if i not in set(sinks)]
        source.statistics.learn(baseline.rule, layers, rows)


def _follow(
    estimator: ReferenceEstimator, rows: NDArray[np.float64]
) -> tuple[tuple[float, ...] | None, NDArray[np.bool_]]:
    """Return the estimator's last thresholds, and which norms were above those of their own moment."""
    triggered = np.zeros(rows.shape, dtype=np.bool_)
    for number, row in enumerate(rows.tolist()):
        estimator.add(row)
        if estimator.thresholds is not None:
            triggered[number] = [n > tau for n, tau in zip(row, estimator.thresholds, strict=True)]
    return estimator.thresholds, triggered

"""What the norms of one sequence mean: which tokens are sinks, which norms are high, and how high they all are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langnorm.norms.baseline import LOW_BELOW, Baseline
from langnorm.norms.thresholds import ReferenceEstimator, ReferenceThreshold, thresholds_of

SINK_FACTOR = 10.0
"""A token with a norm above this multiple of its layer's median is an attention sink (arXiv 2402.17762), whose norm
says nothing about reasoning: reasoning moves norms by less than a factor of ten, sinks by orders of magnitude."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The norms of one sequence of T tokens, read against a baseline.

    Attributes:
        intensities: Of each of the T - 1 rows the mean percentile of its norms, 0 to 1; None without a distribution.
        sinks: Indices of the rows that are attention sinks; they count nowhere else.
        thresholds: One per layer, at the end of the sequence; None while the rule has nothing to go by.
        trigger_rate: Share of the rows above the threshold, one per layer; None together with `thresholds`.
        source: What the norms were compared with.
        low_below: Intensity below which a step is low.
    """

    intensities: tuple[float, ...] | None = None
    sinks: tuple[int, ...] = ()
    thresholds: tuple[float, ...] | None = None
    trigger_rate: tuple[float, ...] | None = None
    source: str | None = None
    low_below: float = LOW_BELOW


def read_norms(norms: Sequence[Sequence[float]], layers: Sequence[int], baseline: Baseline) -> Reading:
    """Return what `norms`, T - 1 rows of one norm per layer, mean against `baseline`.

    Raises:
        OptionError: A fixed threshold is missing for a layer.
    """
    values = np.array(norms, dtype=np.float64).reshape(len(norms), len(layers))
    known = baseline.distribution
    if known is None:
        is_sink = sink_mask(torch.from_numpy(values)).numpy()
    else:
        is_sink = np.any(values > SINK_FACTOR * known.quantile(0.5), axis=-1)
    kept = values[~is_sink]
    triggered = None
    if isinstance(baseline.rule, ReferenceThreshold):
        thresholds, triggered = _follow(baseline.estimator or ReferenceEstimator(baseline.rule, layers), kept)
    else:
        thresholds = thresholds_of(baseline.rule, layers, known)
        if thresholds is not None:
            triggered = kept > np.array(thresholds)
    return Reading(
        intensities=None if known is None else tuple(known.percentile(values).mean(axis=-1).tolist()),
        sinks=tuple(is_sink.nonzero()[0].tolist()),
        thresholds=thresholds,
        trigger_rate=tuple(triggered.mean(axis=0).tolist()) if triggered is not None and len(kept) else None,
        source=None if known is None else baseline.source,
        low_below=baseline.low_below,
    )


def sink_mask(norms: Tensor) -> Tensor:
    """Return which rows of `norms` (..., rows, L) are attention sinks, as booleans (..., rows).

    They are told by the median of the rows themselves, for want of another. Nothing waits for the device.

    Args:
        norms: With NaN where there is no token.
    """
    medians = norms.nanmedian(dim=-2, keepdim=True).values if norms.size(-2) else norms
    return (norms > SINK_FACTOR * medians).any(dim=-1)


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

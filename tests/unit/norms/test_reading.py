"""Norms read against a distribution: percentiles, thresholds, sinks."""

from __future__ import annotations

import math

import pytest
import torch

from langnorm.errors import OptionError
from langnorm.norms.baseline import Baseline
from langnorm.norms.reading import read_norms, read_tokens
from langnorm.norms.reference_estimator import ReferenceEstimator
from langnorm.norms.sinks import SINK_FACTOR, sinks_among
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.thresholds import (
    FixedThreshold,
    IQRThreshold,
    QuantileThreshold,
    ReferenceThreshold,
    ThresholdRule,
    resolve_thresholds,
)
from langnorm.text.steps import StepSpan
from langnorm.trace import NormTrace
from langnorm.trace_builder import build_trace

LAYERS = (3, 4)


def known() -> QuantileSketch:
    """Return the distribution of 1 to 1000 in layer 3 and of ten times that in layer 4."""
    sketch = QuantileSketch(LAYERS)
    values = torch.arange(1.0, 1001.0)
    sketch.update(torch.stack([values, 10 * values], dim=-1))
    return sketch


def baseline_of(rule: ThresholdRule, distribution: QuantileSketch | None = None) -> Baseline:
    """Return what norms of the two layers are compared with by a rule."""
    return Baseline(distribution, rule=rule, thresholds=resolve_thresholds(rule, LAYERS, distribution))


def test_intensity_is_the_mean_of_percentiles_of_the_layers() -> None:
    """The same norm is high in one layer and low in another: 0.5 and 0.05 for the first token."""
    reading = read_norms([[500.0, 500.0], [900.0, 9000.0]], LAYERS, Baseline(known(), "mine"))
    assert reading.intensities == (pytest.approx(0.275, abs=0.01), pytest.approx(0.9, abs=0.01))
    assert reading.source == "mine"


def test_single_tokens_are_read_like_the_whole() -> None:
    """A percentile for each norm, whose mean over layers is the intensity; rows read in parts give the same."""
    rows, baseline = [[500.0, 500.0], [900.0, 9000.0], [1.0, 2e6]], Baseline(known(), "mine")
    whole = read_tokens(rows, LAYERS, baseline, ())
    expected = [[0.5, 0.05], [0.9, 0.9], [0.0, 1.0]]
    assert whole.percentiles == tuple(pytest.approx(row, abs=0.01) for row in expected)
    assert whole.distances is None, "no usual norms of tokens are known"
    means = [sum(row) / 2 for row in whole.percentiles or ()]
    assert read_norms(rows, LAYERS, baseline).intensities == pytest.approx(means, abs=1e-4)
    assert tuple(read_tokens([row], LAYERS, baseline, ()).percentiles[0] for row in rows) == whole.percentiles
    assert read_tokens(rows, LAYERS, Baseline(), ()).percentiles is None
    odd = read_tokens([[math.nan, math.inf]], LAYERS, baseline, ())
    assert odd.percentiles == ((1.0, 1.0),), "JSON has no word for NaN"


def test_nothing_is_guessed_without_a_distribution() -> None:
    """No intensity, no threshold, no name."""
    reading = read_norms([[1.0, 2.0]], LAYERS, Baseline(None, None))
    assert (reading.intensities, reading.thresholds, reading.trigger_rate, reading.source) == (None,) * 4


def test_a_fixed_threshold_needs_no_distribution() -> None:
    """It is a number of the user's, and its trigger rate is told."""
    rule = FixedThreshold({3: 1.5, 4: 30.0})
    reading = read_norms([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]], LAYERS, baseline_of(rule))
    assert reading.thresholds == (1.5, 30.0)
    assert reading.trigger_rate == (0.75, 0.25)


def test_a_threshold_from_a_distribution() -> None:
    """The quantile of each layer."""
    reading = read_norms([[950.0, 950.0]], LAYERS, baseline_of(QuantileThreshold(0.9), known()))
    assert reading.thresholds == (pytest.approx(900, rel=0.02), pytest.approx(9000, rel=0.02))
    assert reading.trigger_rate == (1.0, 0.0)


@pytest.mark.parametrize("baseline", [Baseline(), Baseline(known(), "mine")])
def test_sinks_are_found_with_and_without_a_distribution(baseline: Baseline) -> None:
    """A token far above the median of a layer, in one layer at least, and not the merely high ones."""
    rows = [[600.0, 6000.0], [400.0, 1.0e6], [500.0, 5000.0], [900.0, 9000.0], [1e7, 5000.0]]
    assert read_norms(rows, LAYERS, baseline).sinks == (1, 4)


def test_sinks_are_in_no_trigger_rate() -> None:
    """They are above every threshold, and mean nothing."""
    rows = [[1.0, 1.0]] * 9 + [[1e6, 1.0]]
    assert read_norms(rows, LAYERS, baseline_of(FixedThreshold(2.0))).trigger_rate == (0.0, 0.0)


def test_nothing_but_sinks() -> None:
    """Then there is nothing to say, and nothing is NaN."""
    reading = read_norms([[1e8, 1e8]], LAYERS, Baseline(known(), "mine"))
    assert reading.sinks == (0,)
    assert reading.trigger_rate is None


def test_no_rows() -> None:
    """An answer of one token has none."""
    reading = read_norms([], LAYERS, baseline_of(IQRThreshold(), known()))
    assert reading.intensities == ()
    assert reading.sinks == ()
    assert reading.thresholds is not None
    assert reading.trigger_rate is None


def test_padding_does_not_count() -> None:
    """NaN stands where there is no token, and the median is of the others."""
    norms = torch.tensor([[[1.0], [2.0], [1.5 * SINK_FACTOR * 2], [math.nan]]])
    assert sinks_among(norms).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("baseline", [Baseline(), Baseline(known(), "mine")])
def test_what_overflowed_is_a_sink(baseline: Baseline) -> None:
    """Its norm is infinite where it overflowed and NaN above; none of it is in what is said of the others."""
    rows = [[600.0, 6000.0], [math.inf, math.nan], [math.nan, math.nan], [500.0, 5000.0]]
    reading = read_norms(rows, LAYERS, baseline)
    assert reading.sinks == (1, 2)
    spans = [StepSpan("answer", 0, 5, 0, 1)]
    trace = build_trace(5, LAYERS, rows, spans, reading, keep_tokens=True)
    assert trace.mean == trace.steps[0].mean == (550.0, 5500.0)
    assert NormTrace.from_json(trace.to_json()) == trace


def test_sinks_are_found_without_waiting_for_the_device() -> None:
    """On a device without data nothing can be waited for."""
    assert sinks_among(torch.empty(4, 7, 2, device="meta")).shape == (4, 7)


def test_the_papers_rule_goes_on_from_request_to_request() -> None:
    """Its state is none before the warm-up, then one moment after the other; reading alone teaches it nothing."""
    rule = ReferenceThreshold(warm_up=6)
    estimator, other = ReferenceEstimator(rule, LAYERS), ReferenceEstimator(rule, LAYERS)
    rows = [[float(i), 10.0 * i] for i in (5, 6, 7, 8, 9, 10, 60, 5)]
    for _ in range(3):
        first = read_norms(rows[:4], LAYERS, Baseline(rule=rule, estimator=estimator))
    assert first.thresholds is None
    assert first.trigger_rate == (0.0, 0.0)
    for row in rows[:4]:
        estimator.add(row)
    second = read_norms(rows[4:], LAYERS, Baseline(rule=rule, estimator=estimator))
    above = []
    for row in rows:
        other.add(row)
        above.append(other.thresholds is not None and row[0] > other.thresholds[0])
    assert any(above)
    assert second.thresholds == other.thresholds
    assert second.trigger_rate == (sum(above) / 4,) * 2


@pytest.mark.parametrize("low_below", [-0.1, 1.1, "x", None, True])
def test_a_limit_that_is_no_share_is_refused(low_below: object) -> None:
    """Intensities are between 0 and 1."""
    with pytest.raises(OptionError, match="`low_below=.* is not allowed"):
        Baseline(low_below=low_below)  # type: ignore[arg-type]

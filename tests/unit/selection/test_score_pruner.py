"""Running samples are scored like whole ones, and looking at them changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from langnorm.engines.requests import Partial
from langnorm.norms.baseline import Baseline
from langnorm.norms.reference_estimator import ReferenceEstimator
from langnorm.norms.thresholds import FixedThreshold, ReferenceThreshold
from langnorm.selection.options import Selection
from langnorm.selection.score_pruner import ScorePruner

LAYERS = (3, 7)


def partial(norms: Sequence[float] = (), logprobs: Sequence[float] = (), *, is_running: bool = True) -> Partial:
    """Return a sample whose layers have the same norms."""
    rows = [[norm] * len(LAYERS) for norm in norms]
    return Partial(list(range(65, 65 + len(rows) + 1)), rows, logprobs, is_running)


def pruner(tokenizer: Any = None, baseline: Baseline | None = None, **options: Any) -> ScorePruner:
    """Return a pruner that halves down to one, looking every three tokens."""
    selection = Selection(prune={"every": 3, "least": 1}, **options)
    return ScorePruner(selection, LAYERS if baseline else (), baseline, tokenizer)


def test_the_lower_half_of_the_scores_stops() -> None:
    """By the norms so far; finished ones are compared with, and a sample without a row is left alone."""
    stops = pruner(baseline=Baseline(), score="mean")
    samples = [partial([1, 1]), partial([9, 9], is_running=False), partial([2, 4]), partial(), partial([1, 2])]
    assert stops.every == 3
    assert stops.stopped(samples) == [0, 4]


@pytest.mark.parametrize("score", ["mean_logprob", "numeral_logprob"])
def test_scores_of_log_probabilities_need_no_norms(score: str, tokenizer) -> None:
    """Where none are recorded; the texts of tokens are read from their ids."""
    seven, plus = (tokenizer.encode(text, add_special_tokens=False)[-1] for text in ("7", "+"))
    samples = [Partial([seven, plus], [], logprobs, is_running=True) for logprobs in ([-1, -4], [-2, -0.5])]
    assert pruner(tokenizer, score=score).stopped(samples) == [0 if score == "mean_logprob" else 1]


def test_longer_samples_may_be_those_that_stop() -> None:
    """The number of tokens is known where nothing is recorded of them."""
    samples = [Partial([65] * length, [], [], is_running=True) for length in (3, 2)]
    assert pruner(score="shorter").stopped(samples) == [0]


def test_thresholds_are_those_of_the_baseline() -> None:
    """Both samples have the same norms above 5, and one has more of them above 2."""
    samples = [partial([1, 3, 6]), partial([3, 3, 6])]
    baseline = Baseline(rule=FixedThreshold(2.0), thresholds=(2.0,) * len(LAYERS))
    assert pruner(baseline=baseline, score="rate").stopped(samples) == [0]


def test_looking_at_samples_early_teaches_a_rule_nothing() -> None:
    """However often it is done: the paper's rule takes each token once, when its sample is whole."""
    estimator = ReferenceEstimator(ReferenceThreshold(warm_up=5), LAYERS)
    for norm in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        estimator.add([norm, norm])
    before = estimator.thresholds
    stops = pruner(baseline=Baseline(rule=estimator.rule, estimator=estimator), score="rate")
    samples = [partial([1, 90, 90]), partial([1, 1, 90])]
    assert stops.stopped(samples) == stops.stopped(samples)
    assert estimator.thresholds == before

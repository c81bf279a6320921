"""What the norms of recorded answers say: figures per layer, pure numpy.

Attention sinks are left out of everything but the count of sinks. Intervals are 95 % bootstrap intervals over problems.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langnorm.evaluation.statistics import auroc, bootstrap_mean, spearman
from langnorm.interventions.layer_threshold import RunningTau
from langnorm.norms.reference_estimator import ReferenceEstimator
from langnorm.norms.sinks import sinks_by_medians
from langnorm.norms.thresholds import IQRThreshold, QuantileThreshold, ReferenceThreshold, RunningThreshold, fence

_MOST_SINKS_SHOWN = 10
_LEAST_TOKENS = 4  # of an answer, for a correlation within it


@dataclass(frozen=True, slots=True)
class RecordedTokens:
    """The tokens of an answer that were run, T of them.

    Attributes:
        problem: Number of its problem.
        norms: Their norms (T, L) after all layers.
        ids: The tokens (T,).
        surprisal: Minus their log-probabilities (T,), in nats.
        texts: Their texts.
        is_right: Whether the answer is.
        is_cut: Whether `max_tokens` ended it.
    """

    problem: int
    norms: NDArray[np.float64]
    ids: NDArray[np.int64]
    surprisal: NDArray[np.float64]
    texts: Sequence[str]
    is_right: bool
    is_cut: bool

    def without_sinks(self, medians: NDArray[np.float64]) -> RecordedTokens:
        """Return the tokens that are no attention sinks, judged by the median of each layer (L,)."""
        keep = ~sinks_by_medians(self.norms, medians)
        texts = [text for text, is_kept in zip(self.texts, keep, strict=True) if is_kept]
        return RecordedTokens(
            self.problem, self.norms[keep], self.ids[keep], self.surprisal[keep], texts, self.is_right, self.is_cut
        )


def signal_figures(
    reasoned: Sequence[RecordedTokens], direct: Sequence[RecordedTokens], late: Sequence[int]
) -> dict[str, Any]:
    """Return all figures, in plain JSON types.

    Args:
        reasoned: Answers to problems, asked to reason; at least one has a token.
        direct: Answers to the same problems, asked to answer at once.
        late: Which layers stand for the late ones.
    """
    every = np.concatenate([answer.norms for answer in reasoned])
    medians = np.median(every, axis=0)
    sinks = _sinks(reasoned, medians)
    reasoned, direct = ([answer.without_sinks(medians) for answer in part] for part in (reasoned, direct))
    norms = np.concatenate([answer.norms for answer in reasoned])
    ids = np.concatenate([answer.ids for answer in reasoned])
    shared = np.unique(np.concatenate([answer.ids for answer in direct])) if direct else np.array([], dtype=int)
    difference = _differences(reasoned, direct, None)
    on_shared = _differences(reasoned, direct, shared)
    rates = trigger_rates(reasoned)
    rows = []
    for layer in range(norms.shape[1]):
        column = norms[:, layer]
        first, middle, third, high = np.quantile(column, (0.25, 0.5, 0.75, 0.99)).tolist()
        rows.append(
            {
                "layer": layer,
                "quartiles": [first, middle, third],
                "quantile_99": high,
                "mean_reasoned": bootstrap_mean(_by_problem(reasoned, _mean_norm(layer))),
                "mean_direct": bootstrap_mean(_by_problem(direct, _mean_norm(layer))),
                "relative_difference": bootstrap_mean(difference[:, layer]),
                "relative_difference_on_the_same_tokens": bootstrap_mean(on_shared[:, layer]),
                "share_explained_by_token": explained_by_group(column, ids),
                "correlation_with_surprisal": bootstrap_mean(_within(reasoned, layer, lambda a: a.surprisal)),
                "correlation_with_position": bootstrap_mean(
                    _within(reasoned, layer, lambda a: np.arange(len(a.ids), dtype=float))
                ),
                "auroc_of_right_answers": _auroc(reasoned, layer),
                "trigger_rates": {name: of_rule[layer] for name, of_rule in rates.items()},
            }
        )
    places = list(late)
    return {
        "num_answers": {"reasoned": len(reasoned), "direct": len(direct)},
        "num_tokens": {"reasoned": len(norms), "direct": sum(len(answer.ids) for answer in direct)},
        "right": {
            "reasoned": bootstrap_mean(_means(reasoned, lambda a: float(a.is_right))),
            "direct": bootstrap_mean(_means(direct, lambda a: float(a.is_right))),
        },
        "cut": float(np.mean([answer.is_cut for answer in reasoned])),
        "late_layers": places,
        "late": {
            "relative_difference": bootstrap_mean(difference[:, places].mean(1)),
            "relative_difference_on_the_same_tokens": bootstrap_mean(on_shared[:, places].mean(1)),
            "against_first_half": bootstrap_mean(
                difference[:, places].mean(1) - difference[:, : max(1, norms.shape[1] // 2)].mean(1)
            ),
            "share_explained_by_token": float(np.mean([rows[place]["share_explained_by_token"] for place in places])),
            "auroc_of_right_answers": float(np.mean([rows[place]["auroc_of_right_answers"] for place in places])),
        },
        "growth": rows[-1]["quartiles"][1] / rows[0]["quartiles"][1],
        "sinks": sinks,
        "layers": rows,
    }


def explained_by_group(values: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Return the share of the variance of values (N,) that their groups (N,) explain, adjusted for chance.

    Epsilon squared of a one-way analysis of variance: 1 minus the variance within groups over that of all, each by its
    degrees of freedom. Groups that say nothing have about 0, also where there are many of them. NaN where there is
    nothing to tell.
    """
    _, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    total = float(np.square(values - values.mean()).sum()) if len(values) else 0.0
    free = len(values) - len(counts)
    if free <= 0 or total <= 0:
        return math.nan
    means = np.bincount(places, weights=values) / counts
    within = float(np.square(values - means[places]).sum())
    return 1 - (within / free) / (total / (len(values) - 1))


def trigger_rates(answers: Sequence[RecordedTokens]) -> dict[str, list[float]]:
    """Return by rule the share of tokens above the threshold of each layer.

    `iqr` and `quantile` are those of a profile of these very answers. `running` is what interventions act on: each
    answer by itself. `reference` goes on from answer to answer, and has no threshold in its warm-up.
    """
    norms = np.concatenate([answer.norms for answer in answers])
    rates: dict[str, list[float]] = {}
    quartiles = np.quantile(norms, (0.25, 0.75), axis=0).T.tolist()
    iqr, quantile = IQRThreshold(), QuantileThreshold()
    known = {
        "iqr": [fence(iqr, first, third) for first, third in quartiles],
        f"quantile {quantile.q:g}": np.quantile(norms, quantile.q, axis=0).tolist(),
    }
    for name, taus in known.items():
        rates[name] = (norms > np.array(taus)).mean(0).tolist()
    above = np.zeros(norms.shape[1])
    for answer in answers:
        for layer, column in enumerate(answer.norms.T.tolist()):
            rule = RunningTau(RunningThreshold())
            above[layer] += sum(norm > rule.at(step, norm) for step, norm in enumerate(column))
    rates["running"] = (above / len(norms)).tolist()
    estimator = ReferenceEstimator(ReferenceThreshold(), range(norms.shape[1]))
    above, num_compared = np.zeros(norms.shape[1]), 0
    for row in norms:
        taus = estimator.thresholds
        if taus is not None:
            above, num_compared = above + (row > np.array(taus)), num_compared + 1
        estimator.add(row.tolist())
    rates["reference"] = (above / num_compared if num_compared else np.full(norms.shape[1], math.nan)).tolist()
    return rates


def _sinks(answers: Sequence[RecordedTokens], medians: NDArray[np.float64]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    positions, num_tokens, highest = [], 0, 0.0
    for answer in answers:
        num_tokens += len(answer.ids)
        for place in np.flatnonzero(sinks_by_medians(answer.norms, medians)).tolist():
            counts[answer.texts[place]] += 1
            positions.append(place)
            highest = max(highest, float(np.max(answer.norms[place] / medians)))
    return {
        "share": len(positions) / num_tokens if num_tokens else 0.0,
        "number": len(positions),
        "texts": [{"text": text, "number": number} for text, number in counts.most_common(_MOST_SINKS_SHOWN)],
        "median_position": float(np.median(positions)) if positions else None,
        "highest_over_median": highest or None,
    }


def _mean_norm(layer: int) -> Callable[[RecordedTokens], float]:
    return lambda answer: float(answer.norms[:, layer].mean())


def _by_problem(answers: Sequence[RecordedTokens], value: Callable[[RecordedTokens], float]) -> NDArray[np.float64]:
    """Return the mean over answers (P,), for each problem that has some with tokens, ascending by its number."""
    return _means([answer for answer in answers if len(answer.ids)], value)


def _means(answers: Sequence[RecordedTokens], value: Callable[[RecordedTokens], float]) -> NDArray[np.float64]:
    """Return the mean over answers (P,), for each problem that has some, ascending by its number."""
    values: dict[int, list[float]] = {}
    for answer in answers:
        values.setdefault(answer.problem, []).append(value(answer))
    return np.array([np.mean(values[problem]) for problem in sorted(values)])


def _differences(
    reasoned: Sequence[RecordedTokens], direct: Sequence[RecordedTokens], ids: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """Return by how much the mean norms are higher on reasoned answers (P, L), as a share of those on direct ones.

    Args:
        reasoned: Reasoned answers.
        direct: Direct answers.
        ids: The tokens that count, or None for all.

    Returns:
        A row for each problem that has both, or one row of NaN.
    """
    means: list[Mapping[int, NDArray[np.float64]]] = []
    for answers in (reasoned, direct):
        by_problem: dict[int, list[NDArray[np.float64]]] = {}
        for answer in answers:
            norms = answer.norms if ids is None else answer.norms[np.isin(answer.ids, ids)]
            if len(norms):
                by_problem.setdefault(answer.problem, []).append(norms.mean(0))
        means.append({problem: np.mean(rows, axis=0) for problem, rows in by_problem.items()})
    both = sorted(means[0].keys() & means[1].keys())
    if not both:
        return np.full((1, reasoned[0].norms.shape[1]), math.nan)
    return np.stack([means[0][problem] / means[1][problem] - 1 for problem in both])


def _within(
    answers: Sequence[RecordedTokens], layer: int, other: Callable[[RecordedTokens], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the rank correlation of a layer's norms with something else within answers, a mean per problem (P,)."""
    long = [answer for answer in answers if len(answer.ids) >= _LEAST_TOKENS]
    return _by_problem(long, lambda answer: spearman(answer.norms[:, layer], other(answer)))


def _auroc(answers: Sequence[RecordedTokens], layer: int) -> float:
    means = [(answer.is_right, answer.norms[:, layer].mean()) for answer in answers if len(answer.ids)]
    return auroc([mean for is_right, mean in means if is_right], [mean for is_right, mean in means if not is_right])

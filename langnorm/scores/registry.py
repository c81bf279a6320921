"""Numbers by which sampled responses to one prompt are ranked; the response with the highest score is the best.

A score of norms has one value per layer. Norms grow with depth, so the values of layers are never averaged as they are:
those of each layer are first standardised over the candidates of the prompt. A score without layers is one number and
stays as it is. The functions that compute the scores are in `formulas.py` and its neighbours.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from langnorm.checks import check_number, is_async, refuse
from langnorm.errors import OptionError, closest
from langnorm.scores import (
    formulas,
    formulas_distribution,
    formulas_lens,
    formulas_numerals,
    formulas_trajectory,
)
from langnorm.scores.samples import FloatArray, Sample, is_finite
from langnorm.scores.scaling import ranks, standardised, standardised_columns
from langnorm.scores.score import Score, ScoreFunction

DEFAULT_SCORE = "default"
"""The name of `DEFAULT_WEIGHTS`."""

DEFAULT_WEIGHTS: Mapping[str, float] = MappingProxyType({"numeral_entropy": 1.0, "deepconf_tail": 0.5})
"""What `"default"` means: together with `near` of `Selection`, best on the problems to choose on of two real models
(`benchmarks/real_selection.py`)."""

READABLE_SCORE = "numeral_logprob"
"""What `"default"` means where nobody keeps what `DEFAULT_WEIGHTS` reads."""

Combination = Literal["scores", "ranks"]
COMBINATIONS: tuple[str, ...] = get_args(Combination)
"""What is added up where several scores have weights: the scores, standardised over the responses, or their ranks."""


_scores: dict[str, Score] = {}
_aliases: dict[str, str] = {}

SCORES: Mapping[str, Score] = MappingProxyType(_scores)
"""All scores by name, in the order in which they were registered."""

AnyFunction = TypeVar("AnyFunction", bound=Callable[[Any], Any])


def register(name: str, *, alias: str | None = None, **needs: bool) -> Callable[[AnyFunction], AnyFunction]:
    """Return a decorator that lists a function in `SCORES`; `needs` are the flags of `Score`.

    Raises:
        OptionError: The name or the alias is taken.
    """

    def listed(function: AnyFunction) -> AnyFunction:
        if taken := {name, alias} & {*_scores, *_aliases, DEFAULT_SCORE}:
            msg = f"There is a score `{taken.pop()}` already. Register `{name}` under other names."
            raise OptionError(msg)
        summary = (inspect.getdoc(function) or "").partition("\n")[0]
        _scores[name] = Score(name=name, function=function, summary=summary, **needs)
        if alias is not None:
            _aliases[alias] = name
        return function

    return listed


def get_score(score: str | Score | ScoreFunction) -> Score:
    """Return the score of this name or letter, or one that calls the given function.

    Raises:
        OptionError: There is no score of this name.
    """
    if isinstance(score, Score):
        return score
    if callable(score):
        if is_async(score):
            refuse("score", score, "a function that is not async")
        return Score(name=getattr(score, "__name__", repr(score)), function=score, needs_norms=False)
    name = _aliases.get(score, score) if isinstance(score, str) else ""
    if name not in _scores:
        allowed = ", ".join(f"`{other}`" for other in _scores)
        msg = f"There is no score `{score}`. Use {allowed} or a function of a Sample."
        raise OptionError(msg + closest(str(score), {*_scores, *_aliases, DEFAULT_SCORE} - {str(score)}))
    return _scores[name]


def per_layer(score: str | Score | ScoreFunction, sample: Sample) -> FloatArray:
    """Return the score of one response before layers are combined; one that compares responses sees no other.

    Returns:
        An array (L,), or () for a score without layers. It is NaN when the response cannot be scored: it has no row
        but those of sinks, no token, or a value that is not finite; or the function returned None.

    Raises:
        OptionError: There is no such score, it needs thresholds or log-probabilities that are missing, or its function
            returned something else than finite numbers, one or L of them.
    """
    score = get_score(score)
    if not score.can_read(sample):
        return np.full(len(sample.layers) if score.needs_norms else (), np.nan)
    result = score.function([sample])[0] if score.compares_responses else score.function(sample)
    return _checked(score, result, len(sample.layers))


def _checked(score: Score, result: Any, num_layers: int) -> FloatArray:
    """Return what the function of a score returned for a response, as an array; NaN for None."""
    if result is None:
        return np.full((), np.nan)
    try:
        values = np.asarray(result, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.full((), np.nan)
    if values.shape not in {(), (num_layers,)} or not is_finite(values):
        msg = (
            f"The score `{score.name}` returned `{reprlib.repr(result)}`. Return a finite number, `{num_layers}` of "
            "them (one per layer), or None for a response that cannot be scored."
        )
        raise OptionError(msg)
    return values


def score_samples(score: str | Score | ScoreFunction, samples: Sequence[Sample]) -> list[float | None]:
    """Return the scores of the candidates for one prompt, in their order.

    A score with layers is standardised per layer over the candidates (population standard deviation; a layer where
    all candidates agree contributes 0) and averaged over the layers, so that no layer outweighs another. It compares
    candidates of this prompt only: a single one has 0. A score without layers is returned as it is.

    Returns:
        One number per candidate; None ranks last, for those that cannot be scored (see `per_layer`).

    Raises:
        OptionError: As `per_layer`; or the candidates have values for different layers.
    """
    score = get_score(score)
    if score.compares_responses:
        return _compare(score, samples)
    values = [per_layer(score, sample) for sample in samples]
    scored = [i for i, value in enumerate(values) if value.size and is_finite(value)]
    if len({(values[i].shape, tuple(samples[i].layers) if values[i].ndim else None) for i in scored}) > 1:
        msg = (
            f"The score `{score.name}` has values for different layers in different candidates. Read the same layers "
            "in all of them, and return a number for each response or L numbers for each."
        )
        raise OptionError(msg)
    scores: list[float | None] = [None] * len(samples)
    if scored:
        table = np.stack([values[i] for i in scored])  # (candidates, L) or (candidates,)
        combined = standardised_columns(table).mean(axis=1) if table.ndim > 1 else table
        for i, value in zip(scored, combined.tolist(), strict=True):
            scores[i] = value
    return scores


def _compare(score: Score, samples: Sequence[Sample]) -> list[float | None]:
    """Return what a score that compares responses makes of those that it can read."""
    readable = [i for i, sample in enumerate(samples) if score.can_read(sample)]
    returned = score.function([samples[i] for i in readable]) if readable else []
    found = list(returned) if isinstance(returned, Iterable) else [returned]
    if len(found) != len(readable):
        msg = (
            f"The score `{score.name}` returned {len(found)} values. Return one for each of {len(readable)} responses."
        )
        raise OptionError(msg)
    scores: list[float | None] = [None] * len(samples)
    for i, value in zip(readable, found, strict=True):
        scores[i] = None if value is None else _checked(score, value, 0).item()
    return scores


ScoreOption = str | Score | ScoreFunction | Mapping[str, float] | None
"""What the option `score` of a selection takes: a score, weights of several by name, or None for no score at all."""


def spelled_out(option: ScoreOption) -> ScoreOption:
    """Return an option, the weights in place of `"default"`."""
    return DEFAULT_WEIGHTS if isinstance(option, str) and option == DEFAULT_SCORE else option


def weighted_scores(option: ScoreOption) -> list[tuple[Score, float]]:
    """Return the scores that an option names, each with its weight.

    Raises:
        OptionError: There is no such score, two are the same or have the same name, or a weight is not a finite number.
    """
    option = spelled_out(option)
    if option is None:
        return []
    if not isinstance(option, Mapping):
        return [(get_score(option), 1.0)]
    for name, weight in option.items():
        check_number(str(name), weight, allowed="a finite number as its weight", owner="score")
    if not option:
        msg = "`score={}` names no score. Give weights by name, or None to do without."
        raise OptionError(msg)
    weighted = [(get_score(name), float(weight)) for name, weight in option.items()]
    names = [score.name for score, _ in weighted]
    if twice := {name for name in names if names.count(name) > 1}:
        msg = f"`score` has two weights for `{twice.pop()}`. Give one, and functions names of their own."
        raise OptionError(msg)
    return weighted


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of the candidates for one prompt.

    Attributes:
        scores: One per candidate; None for those that cannot be scored.
        parts: The scores that these are made of, by name.
    """

    scores: list[float | None]
    parts: dict[str, list[float | None]]


def score_all(option: ScoreOption, samples: Sequence[Sample], combine: Combination = "scores") -> Scores:
    """Return the scores of the candidates for one prompt, in their order.

    Scores with weights, be it one, are standardised over the candidates, weighted and summed; `"ranks"` sums ranks in
    their place (Borda), from 1 for the lowest score, ties averaged. A candidate that one of them cannot score has none.
    A score without weight is as `score_samples` returns it, and no score at all is None for everyone.

    Raises:
        OptionError: As `weighted_scores` and `score_samples`.
    """
    option = spelled_out(option)
    weighted = weighted_scores(option)
    parts = {score.name: score_samples(score, samples) for score, _ in weighted}
    if not isinstance(option, Mapping):
        return Scores(next(iter(parts.values()), [None] * len(samples)), parts)
    scored = [i for i in range(len(samples)) if all(values[i] is not None for values in parts.values())]
    total = np.zeros(len(scored))
    for score, weight in weighted:
        values = [parts[score.name][i] or 0.0 for i in scored]
        total += weight * np.array(standardised(values) if combine == "scores" else ranks(values))
    scores: list[float | None] = [None] * len(samples)
    for i, value in zip(scored, total.tolist(), strict=True):
        scores[i] = value
    return Scores(scores, parts)


register("sum", alias="A")(formulas.total)
register("area", alias="B", needs_thresholds=True)(formulas.area)
register("count", alias="C", needs_thresholds=True)(formulas.count)
register("late", alias="D", needs_thresholds=True)(formulas.late_area)
register("mean", is_length_robust=True)(formulas.mean)
register("area_per_token", needs_thresholds=True, is_length_robust=True)(formulas.area_per_token)
register("rate", needs_thresholds=True, is_length_robust=True)(formulas.rate)
register("late_rate", needs_thresholds=True, is_length_robust=True)(formulas.late_rate)
register("p90", is_length_robust=True)(formulas.p90)
register("min_step")(formulas.min_step)
register("tail")(formulas.tail)
register("tail_mean", is_length_robust=True)(formulas.tail_mean)
register("norm_trend", is_length_robust=True)(formulas.norm_trend)
register("shorter", needs_norms=False)(formulas.shorter)
register("mean_logprob", needs_norms=False, needs_logprobs=True, is_length_robust=True)(formulas.mean_logprob)
register("lowest_window", needs_norms=False, needs_logprobs=True)(formulas.lowest_window)
register("numeral_logprob", needs_norms=False, needs_logprobs=True, needs_texts=True, is_length_robust=True)(
    formulas_numerals.numeral_logprob
)
register("numeral_entropy", needs_norms=False, needs_distribution=True, needs_texts=True, is_length_robust=True)(
    formulas_numerals.numeral_entropy
)
register("numeral_confidence", needs_norms=False, needs_distribution=True, needs_texts=True, is_length_robust=True)(
    formulas_numerals.numeral_confidence
)
register("numeral_norm", needs_texts=True, is_length_robust=True)(formulas_numerals.numeral_norm)
register("token_norm", needs_relative_norms=True, is_length_robust=True)(formulas.token_norm)
register("quiet_logprob", needs_logprobs=True, is_length_robust=True)(formulas.quiet_logprob)
register("growth", is_length_robust=True)(formulas.growth)

for _name, _function, _is_robust in (
    ("self_certainty", formulas_distribution.self_certainty, True),
    ("consilience", formulas_distribution.consilience, True),
    ("edis", formulas_distribution.edis, False),
    ("deepconf_lowest", formulas_distribution.deepconf_lowest, False),
    ("deepconf_bottom", formulas_distribution.deepconf_bottom, False),
    ("deepconf_tail", formulas_distribution.deepconf_tail, True),
):
    register(_name, needs_norms=False, needs_distribution=True, is_length_robust=_is_robust)(_function)
register("settling", needs_norms=False, needs_lens=True, is_length_robust=True)(formulas_lens.settling)
register("agreement", needs_norms=False, needs_lens=True, is_length_robust=True)(formulas_lens.agreement)
register("norm_bursts")(formulas_trajectory.norm_bursts)
register("relative_update", needs_updates=True, is_length_robust=True)(formulas_trajectory.relative_update)
register("update_cosine", needs_updates=True, is_length_robust=True)(formulas_trajectory.update_cosine)
register("coe_r", needs_norms=False, needs_mean_states=True, is_length_robust=True)(formulas_trajectory.coe_r)
register("coe_c", needs_norms=False, needs_mean_states=True, is_length_robust=True)(formulas_trajectory.coe_c)
register("consensus", needs_norms=False, needs_mean_states=True, compares_responses=True, is_length_robust=True)(
    formulas_trajectory.consensus
)

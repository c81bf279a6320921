"""Scores agree with their formulas, see no sink, and say what is missing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.errors import OptionError
from langnorm.scores.formulas import lowest_window
from langnorm.scores.registry import (
    DEFAULT_WEIGHTS,
    READABLE_SCORE,
    SCORES,
    get_score,
    per_layer,
    register,
    score_samples,
    weighted_scores,
)
from langnorm.scores.samples import Sample
from langnorm.selection.options import Selection
from tests.reference.scores import (
    REFERENCES,
    reference_combined,
    reference_growth,
    reference_lowest_window,
    reference_mean_logprob,
    reference_min_step,
    reference_numeral_logprob,
    reference_numeral_norm,
    reference_quiet_logprob,
    reference_token_norm,
    without_sinks,
)
from tests.support.samples import reductions, sample, samples

BASELINES = ["mean_logprob", "lowest_window", "numeral_logprob"]
NORM_SCORES = [*REFERENCES, "min_step"]
LAYER_SCORES = [*NORM_SCORES, "quiet_logprob", "numeral_norm", "token_norm"]


def expected(name: str, drawn: Sample) -> list[float]:
    """Return the reference score of each layer."""
    found = []
    for layer, tau in enumerate(drawn.thresholds or ()):
        column = [row[layer] for row in drawn.norms]
        if name == "min_step":
            found.append(reference_min_step(column, list(drawn.sinks), list(drawn.steps)))
        elif name == "quiet_logprob":
            found.append(reference_quiet_logprob(column, list(drawn.logprobs or ()), list(drawn.sinks)))
        elif name == "token_norm":
            relative = [row[layer] for row in drawn.relative_norms or ()]
            found.append(reference_token_norm(without_sinks(relative, list(drawn.sinks))))
        elif name == "numeral_norm":
            found.append(reference_numeral_norm(column, list(drawn.texts or ()), list(drawn.sinks)))
        else:
            found.append(REFERENCES[name](without_sinks(column, list(drawn.sinks)), tau))
    return found


def test_all_scores_have_a_reference() -> None:
    """A score that is added is tested."""
    elsewhere = {name for name, score in SCORES.items() if score.needs_reductions} | {"norm_bursts"}
    assert {*LAYER_SCORES, "growth", "shorter", *BASELINES} | elsewhere == {*SCORES}


@given(samples(min_rows=1))
def test_scores_of_norms_are_their_formulas(drawn: Sample) -> None:
    """In each layer, with that layer's threshold, and without sinks."""
    for name in LAYER_SCORES:
        assert per_layer(name, drawn) == pytest.approx(expected(name, drawn)), name


@given(samples(min_rows=1))
def test_growth_is_its_formula(drawn: Sample) -> None:
    """It is one number of the first and the last layer, and there is none of a single one."""
    first, *_, last = [without_sinks(list(column), list(drawn.sinks)) for column in zip(*drawn.norms, strict=True)] * 2
    growth = None if len(drawn.layers) == 1 else reference_growth(first, last)
    [found] = score_samples("growth", [drawn])
    assert found == (None if growth is None else pytest.approx(growth))


@given(samples(), st.integers(1, 20))
def test_baselines_are_their_formulas(drawn: Sample, window: int) -> None:
    """They are single numbers of all generated tokens."""
    logprobs = list(drawn.logprobs or ())
    assert per_layer("mean_logprob", drawn).item() == pytest.approx(reference_mean_logprob(logprobs))
    of_numerals = reference_numeral_logprob(logprobs, list(drawn.texts or ()))
    assert per_layer("numeral_logprob", drawn).item() == pytest.approx(of_numerals)
    assert per_layer("lowest_window", drawn).item() == pytest.approx(reference_lowest_window(logprobs, 64))
    assert lowest_window(drawn, window) == pytest.approx(reference_lowest_window(logprobs, window))


@given(samples(min_rows=1))
def test_sinks_change_no_score(drawn: Sample) -> None:
    """However large their norms are."""
    sinks = set(drawn.sinks)
    huge = [[1e9] * len(row) if i in sinks else row for i, row in enumerate(drawn.norms)]
    other = dataclasses.replace(drawn, norms=huge)
    for name in [*LAYER_SCORES, "growth"]:
        assert np.array_equal(per_layer(name, other), per_layer(name, drawn), equal_nan=True), name


def test_values_by_hand() -> None:
    """Ten tokens, of which the last three are late."""
    response = sample(*range(1, 11), tau=7.5, steps=[(0, 3), (3, 10)])
    assert {name: per_layer(name, response).item() for name in NORM_SCORES} == pytest.approx(
        {"sum": 55, "area": 4.5, "count": 3, "late": 4.5, "mean": 5.5, "area_per_token": 0.45, "rate": 0.3}
        | {"late_rate": 1, "p90": 9.1, "min_step": 2, "tail": 7 + 8 + 9 + 10, "tail_mean": 8.5, "norm_trend": 8}
    )


def test_the_scores_of_some_tokens_by_hand() -> None:
    """Four tokens, of which the last was never run; three quiet ones of them in each layer, and two numerals."""
    response = Sample(
        norms=[(1.0, 9.0), (2.0, 18.0), (4.0, 4.0), (8.0, 1.0)],
        layers=(3, 7),
        logprobs=[-1.0, -2.0, -4.0, -8.0, -16.0],
        texts=["4", "7", " +", "", "= 9"],
    )
    assert per_layer("quiet_logprob", response).tolist() == pytest.approx([-7 / 3, -13 / 3])
    assert per_layer("numeral_logprob", response).item() == -1.5
    assert per_layer("numeral_norm", response).tolist() == [1, 9]
    assert per_layer("numeral_norm", dataclasses.replace(response, sinks=[0])).tolist() == [14 / 3, 23 / 3]
    assert per_layer("growth", response).item() == pytest.approx(math.log(9 * 9 * 1 / 8) / 4)


@pytest.mark.parametrize(
    ("text", "is_numeral"), [("47", True), (" 7\n", True), ("-7", False), ("7.", False), ("", False)]
)
def test_numerals_are_digits_alone(text: str, is_numeral: bool) -> None:
    """White space around them is part of many tokens."""
    response = sample(logprobs=[-1.0, -3.0], texts=["x", text])
    assert per_layer("numeral_logprob", response).item() == (-3 if is_numeral else -2)


def test_of_tokens_that_are_equally_quiet_the_first_count() -> None:
    """Sinks are not among them, and their log-probabilities are read no more than their norms."""
    assert per_layer("quiet_logprob", sample(5, 5, 5, logprobs=[-1.0, -1.0, -1.0])).item() == -1
    masked = sample(99, 5, 5, 5, 5, sinks=[0], logprobs=[-50.0, -1.0, -2.0, -3.0, -4.0])
    assert per_layer("quiet_logprob", masked).item() == -2


def test_growth_needs_two_layers_and_norms() -> None:
    """Of a single layer or a norm of 0 there is none, whatever the layers between are."""
    assert score_samples("growth", [Sample([(2.0, 0.0, 8.0)], (1, 2, 3))]) == pytest.approx([math.log(4)])
    assert score_samples("growth", [Sample([(2.0,)], (1,)), Sample([(0.0, 1.0)], (1, 2))]) == [None, None]


@pytest.mark.parametrize(("num_rows", "num_late"), [(1, 1), (3, 1), (4, 2), (10, 3), (11, 4), (20, 6), (1000, 300)])
def test_late_tokens_are_the_last_three_tenths_rounded_up(num_rows: int, num_late: int) -> None:
    """They are counted among the rows that are left: sinks neither fill the late part nor empty it."""
    assert sample(*range(num_rows)).late_rows.tolist() == [[i] for i in range(num_rows - num_late, num_rows)]
    masked = sample(*range(num_rows), 7, 7, sinks=[num_rows, num_rows + 1])
    assert masked.late_rows.tolist() == sample(*range(num_rows)).late_rows.tolist()


@pytest.mark.parametrize("name", NORM_SCORES)
def test_a_single_token_has_every_score(name: str) -> None:
    """It is the whole response and its late part."""
    value = {"area": 0.5, "late": 0.5, "area_per_token": 0.5, "count": 1, "rate": 1, "late_rate": 1}
    value = (value | {"norm_trend": 0}).get(name, 3)
    assert per_layer(name, sample(3)).tolist() == [value]


def test_a_norm_at_the_threshold_is_not_above_it() -> None:
    """The comparison is strict."""
    assert per_layer("count", sample(2, 2.5, 3)).item() == 1


def test_steps_without_rows_are_passed_over() -> None:
    """Without any step that has rows, the response is one step."""
    assert per_layer("min_step", sample(1, 5, 9, sinks=[0], steps=[(0, 1), (1, 3), (3, 4)])).item() == 7
    assert per_layer("min_step", sample(1, 5, 9, sinks=[0], steps=[(0, 1), (3, 4)])).item() == 7
    assert per_layer("min_step", sample(1, 5, 9)).item() == 5


@pytest.mark.parametrize("name", NORM_SCORES)
@pytest.mark.parametrize("empty", [sample(), sample(3, sinks=[0]), sample(3, math.nan), sample(3, math.inf)])
def test_a_response_that_cannot_be_scored_has_none(name: str, empty: Sample) -> None:
    """It ranks last, and the others are scored as if it were not there."""
    others = [sample(1, 2, 3), sample(3, 4, 5)]
    first, last = score_samples(name, others)
    assert score_samples(name, [others[0], empty, others[1]]) == [first, None, last]
    assert score_samples(name, [empty]) == [None]
    assert np.isnan(per_layer(name, empty)).tolist() == [True]


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_need_no_norms(name: str) -> None:
    """Norms may be off or masked; without a token or with an impossible one there is no score."""
    logprobs = [[-1.0], [-3.0], [], [-1.0, -math.inf]]
    candidates = [sample(logprobs=values, texts=["7"] * len(values)) for values in logprobs]
    assert score_samples(name, candidates) == [-1, -3, None, None]


def test_shorter_counts_all_tokens() -> None:
    """Sinks too, and the last token, which is never run, where log-probabilities tell of it; no token is no score."""
    assert per_layer("shorter", sample(1, 2, 3, sinks=[0])).item() == -3
    assert per_layer("shorter", sample(1, 2, logprobs=[-1.0, -1.0, -1.0])).item() == -3
    assert score_samples("shorter", [sample(), sample(1)]) == [None, -1]
    assert score_samples("shorter", [sample(num_tokens=0), sample(num_tokens=7), sample(1, num_tokens=2)]) == [
        None,
        -7,
        -2,
    ]


@pytest.mark.parametrize(("letter", "name"), [("A", "sum"), ("B", "area"), ("C", "count"), ("D", "late")])
def test_letters_of_the_paper_are_accepted(letter: str, name: str) -> None:
    """They are other names of the same scores, and not listed twice."""
    assert get_score(letter) is SCORES[name]
    assert letter not in SCORES


def test_the_default_ignores_length() -> None:
    """It is made of scores that are marked as length-robust, and so is what stands in for it."""
    assert weighted_scores("default") == [(SCORES[name], weight) for name, weight in DEFAULT_WEIGHTS.items()]
    assert all(SCORES[name].is_length_robust for name in (*DEFAULT_WEIGHTS, READABLE_SCORE))


def test_the_default_is_no_score_of_its_own() -> None:
    """It is weights of several: no part of other weights, and nobody can register another."""
    with pytest.raises(OptionError, match="There is no score `default`. Use `sum`"):
        weighted_scores({"default": 1.0, "mean": 1.0})
    with pytest.raises(OptionError, match="There is no score `defalt`.*Did you mean `default`"):
        weighted_scores("defalt")
    with pytest.raises(OptionError, match="There is a score `default` already"):
        register("default")(len)


@pytest.mark.parametrize("name", SCORES)
def test_scores_say_what_they_are(name: str) -> None:
    """Listings show one line each."""
    assert SCORES[name].name == name
    assert SCORES[name].summary.endswith(".")


@pytest.mark.parametrize(
    ("name", "hint"), [("late_rat", "Did you mean `late_rate`"), ("xyz", "Use `sum`, "), (3, "`3`")]
)
def test_unknown_scores_are_refused(name, hint: str) -> None:
    """The error names what is allowed, and the closest name."""
    with pytest.raises(OptionError, match=hint):
        get_score(name)


def test_scores_that_compare_need_thresholds() -> None:
    """The error says how to get some, and it comes for an empty response too."""
    for name, score in SCORES.items():
        if score.needs_thresholds:
            for response in (sample(1, 2, tau=None), sample(tau=None)):
                with pytest.raises(OptionError, match=r"Calibrate a NormProfile.*`mean`"):
                    per_layer(name, response)
        else:
            kept = reductions(np.random.default_rng(1), num_rows=1, num_layers=2)
            response = Sample([(1.0, 2.0)], (1, 2), logprobs=[-1.0, -1.0], texts=["7", ""], reductions=kept)
            response = dataclasses.replace(response, relative_norms=[(0.5, -1.0)])
            assert np.isfinite(per_layer(name, response)).all()


def test_relative_norms_need_tokens() -> None:
    """Who does not know which tokens there were cannot compare with their usual norms."""
    with pytest.raises(OptionError, match=r'the usual ones of the same tokens.*`norms="tokens"`'):
        per_layer("token_norm", sample(1, 2))
    for rows in ([(0.5,)], [(0.5, 1.0)] * 2):
        with pytest.raises(OptionError, match="`relative_norms` do not fit. Give `2` rows of `1`"):
            sample(1, 2, relative_norms=rows)
    assert Selection(score={"token_norm": 1, "mean": 1}).needs_relative_norms
    assert not Selection(score="mean").needs_relative_norms


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if score.needs_logprobs])
def test_some_scores_need_logprobs(name: str) -> None:
    """The error says how to get them."""
    with pytest.raises(OptionError, match="reads log-probabilities.*`logprobs=True`"):
        score_samples(name, [sample(1, 2, texts=["7", "7"])])


def test_the_score_of_numerals_needs_texts() -> None:
    """The error says how to get them."""
    with pytest.raises(OptionError, match="reads the texts.*`logprobs=True`"):
        score_samples("numeral_logprob", [sample(1, logprobs=[-1.0])])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norms": [(1.0, 2.0)]}, "`1` norms in each"),
        ({"thresholds": (1.0, 2.0)}, "`1` finite numbers"),
        ({"thresholds": (math.nan,)}, "`1` finite numbers"),
        ({"sinks": [1]}, "below `1`"),
        ({"sinks": [-1]}, "from 0"),
        ({"logprobs": []}, "`0` `logprobs`. Give one per token: `1` rows or more"),
        ({"texts": []}, "`0` `texts`. Give one per token: `1` rows or more"),
        ({"logprobs": [-1.0], "texts": ["a", "b"]}, "`1` `logprobs` and `2` `texts`"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict, message: str) -> None:
    """Rows and thresholds have one value per layer, sinks are rows, and tokens have a probability and a text each."""
    with pytest.raises(OptionError, match=message):
        Sample(**({"norms": [(1.0,)], "layers": (9,)} | fields))


@given(st.lists(samples(num_layers=2, min_rows=1), min_size=1, max_size=6))
def test_layers_are_standardised_and_averaged(drawn: list[Sample]) -> None:
    """Over the candidates, with the population's standard deviation."""
    for name in LAYER_SCORES:
        table = [per_layer(name, one).tolist() for one in drawn]
        assert score_samples(name, drawn) == pytest.approx(reference_combined(table), abs=1e-6), name


def test_no_layer_outweighs_another() -> None:
    """Scaling the norms of one layer changes no score."""
    rows = np.random.default_rng(0).uniform(1, 2, size=(5, 8, 3))
    plain = [Sample(of_one.tolist(), (1, 2, 3)) for of_one in rows]
    scaled = [Sample((of_one * [1, 1000, 1]).tolist(), (1, 2, 3)) for of_one in rows]
    assert score_samples("mean", scaled) == pytest.approx(score_samples("mean", plain))


def test_a_layer_without_spread_contributes_nothing() -> None:
    """Rounding is no spread: the mean of 0.1, 0.1, 0.1 is not quite that of 0.1."""
    candidates = [Sample([(0.1, 1.0)] * 3, (1, 2)), Sample([(0.1, 3.0)], (1, 2))]
    assert score_samples("mean", candidates) == [-0.5, 0.5]


@pytest.mark.parametrize("name", NORM_SCORES)
def test_a_single_candidate_has_zero(name: str) -> None:
    """There is nothing to compare it with."""
    assert score_samples(name, [sample(1, 2, 3)]) == [0]
    assert score_samples(name, []) == []


def test_candidates_have_the_same_layers() -> None:
    """Values of different layers are not compared, even when there are as many."""
    with pytest.raises(OptionError, match="Read the same layers"):
        score_samples("mean", [Sample([(1.0,)], (1,)), Sample([(1.0,)], (2,))])

"""Scores agree with their formulas, see no sink, and say what is missing."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.errors import OptionError
from langnorm.scores import (
    DEFAULT_SCORE,
    LENGTH_WARNING,
    SCORES,
    Sample,
    get_score,
    length_correlation,
    lowest_window,
    per_layer,
    register,
    score_samples,
)
from tests.reference.scores import (
    REFERENCES,
    reference_combined,
    reference_lowest_window,
    reference_mean_logprob,
    reference_min_step,
    reference_spearman,
    without_sinks,
)

NORM_SCORES = [name for name, score in SCORES.items() if score.needs_norms]
BASELINES = ["mean_logprob", "lowest_window"]


@st.composite
def samples(draw: st.DrawFn, num_layers: int | None = None, min_rows: int = 0) -> Sample:
    """Draw a response that keeps `min_rows` rows at least when its sinks are masked."""
    num_layers = draw(st.integers(1, 3)) if num_layers is None else num_layers
    num_rows = draw(st.integers(min_rows, 40))
    # Floats from a seed: drawing hundreds of them one by one takes hypothesis half a second.
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    norms = 10 ** rng.uniform(-2, 5, size=(num_rows + 1, num_layers))
    if draw(st.booleans()):
        norms = norms.round()  # ties, with the threshold too
    num_sinks = draw(st.integers(0, num_rows - min_rows))
    # The last token has no row, so that the last step may have none.
    cuts = sorted(draw(st.sets(st.integers(0, num_rows + 1), max_size=5)))
    return Sample(
        norms=norms[:-1].tolist(),
        layers=range(10, 10 + num_layers),
        thresholds=norms[rng.integers(num_rows + 1)].tolist(),
        sinks=sorted(rng.permutation(num_rows)[:num_sinks].tolist()),
        steps=list(itertools.pairwise(cuts)),
        logprobs=(-rng.exponential(2.0, size=num_rows + 1)).tolist(),
    )


def sample(*norms: float, tau: float | None = 2.5, **others) -> Sample:
    """Return a response of one layer."""
    thresholds = None if tau is None else (tau,)
    return Sample(norms=[(value,) for value in norms], layers=(9,), thresholds=thresholds, **others)


def expected(name: str, drawn: Sample) -> list[float]:
    """Return the reference score of each layer."""
    found = []
    for layer, tau in enumerate(drawn.thresholds or ()):
        column = [row[layer] for row in drawn.norms]
        if name == "min_step":
            found.append(reference_min_step(column, list(drawn.sinks), list(drawn.steps)))
        else:
            found.append(REFERENCES[name](without_sinks(column, list(drawn.sinks)), tau))
    return found


def test_all_scores_have_a_reference() -> None:
    """A score that is added is tested."""
    assert {*REFERENCES, "min_step", *BASELINES} == {*SCORES}


@given(samples(min_rows=1))
def test_scores_of_norms_are_their_formulas(drawn: Sample) -> None:
    """In each layer, with that layer's threshold, and without sinks."""
    for name in NORM_SCORES:
        assert per_layer(name, drawn) == pytest.approx(expected(name, drawn)), name


@given(samples(), st.integers(1, 20))
def test_baselines_are_their_formulas(drawn: Sample, window: int) -> None:
    """They are single numbers of all generated tokens."""
    logprobs = list(drawn.logprobs or ())
    assert per_layer("mean_logprob", drawn).item() == pytest.approx(reference_mean_logprob(logprobs))
    assert per_layer("lowest_window", drawn).item() == pytest.approx(reference_lowest_window(logprobs, 64))
    assert lowest_window(drawn, window) == pytest.approx(reference_lowest_window(logprobs, window))


@given(samples(min_rows=1))
def test_sinks_change_no_score(drawn: Sample) -> None:
    """However large their norms are."""
    sinks = set(drawn.sinks)
    huge = [[1e9] * len(row) if i in sinks else row for i, row in enumerate(drawn.norms)]
    other = Sample(huge, drawn.layers, drawn.thresholds, drawn.sinks, drawn.steps)
    for name in NORM_SCORES:
        assert per_layer(name, other).tolist() == per_layer(name, drawn).tolist(), name


def test_values_by_hand() -> None:
    """Ten tokens, of which the last three are late."""
    response = sample(*range(1, 11), tau=7.5, steps=[(0, 3), (3, 10)])
    assert {name: per_layer(name, response).item() for name in NORM_SCORES} == pytest.approx(
        {"sum": 55, "area": 4.5, "count": 3, "late": 4.5, "mean": 5.5, "area_per_token": 0.45, "rate": 0.3}
        | {"late_rate": 1, "p90": 9.1, "min_step": 2}
    )


@pytest.mark.parametrize(("num_rows", "num_late"), [(1, 1), (3, 1), (4, 2), (10, 3), (11, 4), (20, 6), (1000, 300)])
def test_late_tokens_are_the_last_three_tenths_rounded_up(num_rows: int, num_late: int) -> None:
    """They are counted among the rows that are left: sinks neither fill the late part nor empty it."""
    assert sample(*range(num_rows)).late_rows.tolist() == [[i] for i in range(num_rows - num_late, num_rows)]
    masked = sample(*range(num_rows), 7, 7, sinks=[num_rows, num_rows + 1])
    assert masked.late_rows.tolist() == sample(*range(num_rows)).late_rows.tolist()


@pytest.mark.parametrize("name", NORM_SCORES)
def test_a_single_token_has_every_score(name: str) -> None:
    """It is the whole response and its late part."""
    value = {"area": 0.5, "late": 0.5, "area_per_token": 0.5, "count": 1, "rate": 1, "late_rate": 1}.get(name, 3)
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
    candidates = [sample(logprobs=values) for values in ([-1.0], [-3.0], [], [-1.0, -math.inf])]
    assert score_samples(name, candidates) == [-1, -3, None, None]


@pytest.mark.parametrize(("letter", "name"), [("A", "sum"), ("B", "area"), ("C", "count"), ("D", "late")])
def test_letters_of_the_paper_are_accepted(letter: str, name: str) -> None:
    """They are other names of the same scores, and not listed twice."""
    assert get_score(letter) is SCORES[name]
    assert letter not in SCORES


def test_the_default_ignores_length() -> None:
    """It is one of those marked as length-robust."""
    assert SCORES[DEFAULT_SCORE].is_length_robust


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
        elif score.needs_norms:
            assert np.isfinite(per_layer(name, sample(1, 2, tau=None)))


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_need_logprobs(name: str) -> None:
    """The error says how to get them."""
    with pytest.raises(OptionError, match="`logprobs=True`"):
        score_samples(name, [sample(1, 2)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norms": [(1.0, 2.0)]}, "`1` norms in each"),
        ({"thresholds": (1.0, 2.0)}, "`1` finite numbers"),
        ({"thresholds": (math.nan,)}, "`1` finite numbers"),
        ({"sinks": [1]}, "below `1`"),
        ({"sinks": [-1]}, "from 0"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict, message: str) -> None:
    """Rows and thresholds have one value per layer, and sinks are rows."""
    with pytest.raises(OptionError, match=message):
        Sample(**({"norms": [(1.0,)], "layers": (9,)} | fields))


@given(st.lists(samples(num_layers=2, min_rows=1), min_size=1, max_size=6))
def test_layers_are_standardised_and_averaged(drawn: list[Sample]) -> None:
    """Over the candidates, with the population's standard deviation."""
    for name in NORM_SCORES:
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


def test_functions_are_scores() -> None:
    """A number is used as it is; one number per layer is combined like a score of norms."""
    candidates = [sample(1, 2), sample(3, 4, 5)]
    assert score_samples(lambda one: len(one.norms), candidates) == [2, 3]
    assert score_samples(lambda one: one.rows.max(axis=0), candidates) == [-1, 1]
    assert score_samples(functools.partial(lowest_window, window=2), [sample(logprobs=[-1, -2, -4])]) == [-3]


def test_a_function_may_leave_a_response_out() -> None:
    """With None; the others are ranked, by one number or by layers."""
    candidates = [sample(1), sample(), sample(3)]
    assert score_samples(lambda one: one.rows.max(axis=0) if len(one.rows) else None, candidates) == [-1, None, 1]
    assert score_samples(lambda one: len(one.rows) or None, candidates) == [1, None, 1]
    assert score_samples(lambda _: None, candidates) == [None] * 3


@pytest.mark.parametrize("returned", [math.nan, math.inf, [1.0, 2.0], [[1.0]], [math.nan], "many", [None], {}])
def test_a_function_returns_finite_numbers(returned) -> None:
    """One, or one per layer; the error names the function."""

    def depth(one: Sample):
        return returned

    with pytest.raises(OptionError, match="The score `depth` returned .* None for a response"):
        score_samples(depth, [sample(1, 2)])


def test_a_function_returns_the_same_for_each_response() -> None:
    """Numbers for some and layers for others cannot be compared."""
    with pytest.raises(OptionError, match="L numbers for each"):
        score_samples(lambda one: 1.0 if len(one.norms) > 1 else [1.0], [sample(1), sample(1, 2)])


def test_names_are_registered_once() -> None:
    """Neither names nor letters are replaced, and what is listed cannot be changed."""
    listed = dict(SCORES)
    for name, alias in (("mean", None), ("A", None), ("new", "B"), ("new", "rate")):
        with pytest.raises(OptionError, match="already"):
            register(name, alias=alias)(len)
    with pytest.raises(TypeError):
        SCORES["mean"] = SCORES["rate"]  # type: ignore[index]
    assert dict(SCORES) == listed


def test_registered_functions_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what they need, the first line of their docstring and their letter."""
    monkeypatch.setattr("langnorm.scores._scores", {})
    monkeypatch.setattr("langnorm.scores._aliases", {})

    @register("peak", alias="P", is_length_robust=True)
    def peak(one: Sample) -> np.ndarray:
        """Highest norm.

        More.
        """
        return one.rows.max(axis=0)

    score = get_score("P")
    assert (score.name, score.summary, score.needs_norms, score.is_length_robust) == (
        "peak",
        "Highest norm.",
        True,
        True,
    )
    assert per_layer("peak", sample(1, 3)).tolist() == [3]


@given(st.lists(st.tuples(st.integers(-3, 3) | st.floats(-3, 3), st.integers(1, 6)), min_size=3, max_size=12))
def test_correlation_with_length_is_spearmans(pairs: list[tuple[float, int]]) -> None:
    """Ties share the average of their ranks; without a difference there is no correlation."""
    scores, lengths = zip(*pairs, strict=True)
    reference = reference_spearman(list(scores), list(lengths))
    found = length_correlation(scores, lengths)
    assert (found is None) == (reference is None)
    assert found == (None if reference is None else pytest.approx(reference))


def test_correlation_leaves_out_what_has_no_score() -> None:
    """Two candidates say nothing: any two points are in line."""
    assert length_correlation([1.0, None, 2.0, 3.0], [30, 99, 20, 10]) == pytest.approx(-1)
    assert length_correlation([1.0, None, 2.0], [30, 99, 20]) is None
    assert length_correlation([], []) is None


@pytest.fixture(scope="module")
def alike() -> list[Sample]:
    """Return 400 responses of 40 to 800 tokens, whose tokens are drawn alike from two skewed distributions."""
    rng = np.random.default_rng(2606)
    found = []
    for num_rows in rng.integers(40, 800, size=400):
        rows = rng.lognormal(sigma=0.4, size=(num_rows, 2)) * [1000, 3000]
        steps = [(start, start + 20) for start in range(0, num_rows, 20)]
        logprobs = -rng.exponential(0.3, size=num_rows)
        found.append(Sample(rows.tolist(), (21, 22), (1500, 4500), steps=steps, logprobs=logprobs.tolist()))
    return found


@pytest.mark.parametrize("name", SCORES)
def test_only_length_robust_scores_ignore_length(name: str, alike: list[Sample]) -> None:
    """On tokens drawn alike, sums rank by length; means, shares and percentiles do not; minima fall with length."""
    rho = length_correlation(score_samples(name, alike), [len(one.norms) for one in alike])
    assert rho is not None
    if SCORES[name].is_length_robust:
        assert abs(rho) < 0.2
    elif name in ("sum", "area", "count", "late"):
        assert rho > LENGTH_WARNING
    else:
        assert rho < -0.2

"""Scores of distributions, updates and mean states agree with their formulas, and say what is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.errors import OptionError
from langnorm.reductions import Distribution, Lens, Reductions, Updates
from langnorm.scores.registry import SCORES, per_layer, score_all, score_samples
from langnorm.scores.samples import Sample
from langnorm.scores.score import Score
from langnorm.selection.options import Selection
from tests.reference.reduction_scores import (
    average,
    reference_borda,
    reference_coe_c,
    reference_coe_r,
    reference_consensus,
    reference_consilience,
    reference_deepconf,
    reference_edis,
    reference_norm_bursts,
    reference_settling,
)
from tests.reference.scores import reference_numeral_logprob, without_sinks
from tests.support.samples import sample, samples

OF_REDUCTIONS = [name for name, score in SCORES.items() if score.needs_reductions]
OF_DISTRIBUTION = [name for name, score in SCORES.items() if score.needs_distribution]
OF_STATES = [name for name, score in SCORES.items() if score.needs_mean_states]


def distribution(**columns: Any) -> Sample:
    """Return a response of which nothing is known but some columns of its distributions."""
    num_tokens = len(next(iter(columns.values())))
    fields = {name: np.zeros(num_tokens) for name in Distribution.__dataclass_fields__}
    fields |= {name: np.array(values, dtype=float) for name, values in columns.items()}
    return Sample((), (), texts=["7"] * num_tokens, reductions=Reductions(distribution=Distribution(**fields)))


def mean_states(*states: Any) -> Sample:
    """Return a response of which nothing is known but its mean states."""
    return Sample((), (), reductions=Reductions(mean_states=np.array(states, dtype=float)))


@given(samples(most_rows=150))
def test_scores_of_distributions_are_their_formulas(drawn: Sample) -> None:
    """They read all tokens, sinks and the last one included."""
    of = {name: getattr(drawn.distribution, name).tolist() for name in Distribution.__dataclass_fields__}
    lowest, bottom, tail = reference_deepconf(of["top20_logprob"])
    expected = {
        "self_certainty": average(of["self_certainty"]),
        "consilience": reference_consilience(of["top5_logprob"]),
        "edis": reference_edis(of["entropy"]),
        "deepconf_lowest": lowest,
        "deepconf_bottom": bottom,
        "deepconf_tail": tail,
        "numeral_entropy": -reference_numeral_logprob(of["entropy"], list(drawn.texts or ())),
        "numeral_confidence": -reference_numeral_logprob(of["top5_logprob"], list(drawn.texts or ())),
    }
    assert expected.keys() == {*OF_DISTRIBUTION}
    assert {name: per_layer(name, drawn).item() for name in expected} == pytest.approx(expected)


@given(samples())
def test_scores_of_lenses_are_their_formulas(drawn: Sample) -> None:
    """They read all tokens, sinks and the last one included."""
    settling, agreement = drawn.lens.settling.tolist(), drawn.lens.agreement.tolist()
    assert per_layer("settling", drawn).item() == pytest.approx(reference_settling(settling))
    assert per_layer("agreement", drawn).item() == pytest.approx(average(agreement))


def test_a_lens_fits_the_response() -> None:
    """One number per token; a response without tokens has no score."""
    lens = Lens(settling=np.array([0.75, 0.85, 1.0]), agreement=np.array([1.0, 0.5, 0.0]))
    assert per_layer("settling", Sample((), (), reductions=Reductions(lens=lens))).item() == pytest.approx(2 / 3)
    for fields in ({"texts": ["a"]}, {"norms": [[1.0]] * 4, "layers": (2,)}):
        with pytest.raises(OptionError, match="The `lens` of the reductions has `3` rows"):
            Sample(**{"norms": (), "layers": (), **fields}, reductions=Reductions(lens=lens))
    empty = Lens(settling=np.empty(0), agreement=np.empty(0))
    assert score_samples("agreement", [Sample((), (), reductions=Reductions(lens=empty))]) == [None]


@given(samples(min_rows=1))
def test_scores_of_updates_and_bursts_are_their_formulas(drawn: Sample) -> None:
    """In each layer, and without sinks."""
    updates, sinks = drawn.reductions.updates, list(drawn.sinks)
    assert updates is not None
    for layer in range(len(drawn.layers)):
        norms, before, cosines = (
            without_sinks(table[:, layer].tolist(), sinks)
            for table in (updates.norms, updates.previous_norms, updates.layer_cosines)
        )
        relative = average([norm / earlier for norm, earlier in zip(norms, before, strict=True)])
        assert per_layer("relative_update", drawn)[layer] == pytest.approx(relative)
        assert per_layer("update_cosine", drawn)[layer] == pytest.approx(average(cosines))
        of_layer = without_sinks([row[layer] for row in drawn.norms], sinks)
        assert per_layer("norm_bursts", drawn)[layer] == pytest.approx(reference_norm_bursts(of_layer))


@given(st.lists(samples(num_layers=1, min_rows=1), min_size=1, max_size=5))
def test_scores_of_mean_states_are_their_formulas(drawn: list[Sample]) -> None:
    """Each response by itself, or with the others."""
    states = [one.mean_states.tolist() for one in drawn]
    assert score_samples("coe_r", drawn) == pytest.approx([reference_coe_r(one) for one in states], rel=1e-5)
    assert score_samples("coe_c", drawn) == pytest.approx([reference_coe_c(one) for one in states], rel=1e-5)
    expected = reference_consensus([reference_coe_r(one) for one in states])
    assert score_samples("consensus", drawn) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_values_by_hand() -> None:
    """Small cases that can be followed with a pencil."""
    assert per_layer("consilience", distribution(top5_logprob=[-1, -9, -9, -9, -5])).item() == 5 - 3
    # Bursts at tokens 8 and 9, rebounds at 1, 8 and 9; the variance of three ones and seven zeros, and of one in ten.
    entropies = [0, 2, 0, 0, 0, 0, 0, 0, 2, 4]
    assert per_layer("edis", distribution(entropy=entropies)).item() == pytest.approx(-2.5 * (1 + 1.76))
    assert per_layer("deepconf_lowest", distribution(top20_logprob=[-9] * 10 + [-2] * 64)).item() == 2
    assert per_layer("deepconf_tail", distribution(top20_logprob=[-9] * 10 + [-2] * 64)).item() == 2
    # A quarter of a turn in two equal steps on the unit circle, each of the length 2 sin(pi / 8).
    half = np.sqrt(0.5)
    arc = mean_states([1, 0], [half, half], [0, 1])
    assert per_layer("coe_r", arc).item() == pytest.approx(2 * np.sin(np.pi / 8) / np.sqrt(2) - 0.5)
    assert per_layer("coe_c", arc).item() == pytest.approx(2 * np.sin(np.pi / 8) / np.sqrt(2))


def test_flat_norms_have_no_bursts() -> None:
    """Whatever rounding makes of them; norms of nothing neither."""
    assert per_layer("norm_bursts", sample(*[0.1 + 0.2, 0.3] * 20)).tolist() == [0]
    assert per_layer("norm_bursts", sample(0, 0, 0)).tolist() == [0]


@pytest.mark.parametrize("name", OF_STATES)
def test_a_chain_that_goes_nowhere_is_not_scored(name: str) -> None:
    """Nor one with a state of length nothing, or of a response of one token, of which none was run."""
    still, through, empty = mean_states([1, 0], [0, 2], [1, 0]), mean_states([1, 0], [0, 0], [0, 1]), mean_states()
    parallel, empty = (
        mean_states([1, 0], [0, 1], [2, 0]),
        replace(empty, reductions=Reductions(mean_states=np.empty((0, 2)))),
    )
    sound = mean_states([1, 0], [1, 1], [0, 1])
    scores = score_samples(name, [still, through, sound, parallel, empty])
    assert [score is None for score in scores] == [True, True, False, True, True]
    assert score_samples(name, [empty]) == [None]


def test_a_state_of_nothing_has_no_relative_update() -> None:
    """And no score."""
    table = np.ones((2, 1))
    updates = Updates(norms=table, previous_norms=table * [[1], [0]], layer_cosines=table, token_cosines=table)
    response = sample(1, 2, reductions=Reductions(updates=updates))
    assert score_samples("relative_update", [response]) == [None]
    masked = replace(response, sinks=[1])
    assert per_layer("relative_update", masked).tolist() == [1]


def test_odd_ones_have_no_consensus() -> None:
    """The response nearest to the others is the best."""
    responses = [mean_states([1, 0], [1, turn], [0, 1]) for turn in (1.0, 1.1, 5.0)]
    scores = score_samples("consensus", responses)
    assert np.argmax(scores) == 1
    assert np.argmin(scores) == 2


@pytest.mark.parametrize("name", OF_REDUCTIONS)
def test_they_need_a_record(name: str) -> None:
    """The error says how to get one."""
    score, mend = SCORES[name], "Messages do not carry it"
    if score.needs_distribution or score.needs_lens:
        mend = f"Ask the model with `{'distribution' if score.needs_distribution else 'lens'}=True`"
    with pytest.raises(OptionError, match=f"no record of it. {mend}.*`NormSelector`"):
        score_samples(name, [sample(1, 2, logprobs=[-1.0, -1.0])])


def test_an_empty_response_has_none() -> None:
    """No token, no distribution."""
    for name in OF_DISTRIBUTION:
        assert score_samples(name, [distribution(entropy=[])]) == [None]


def test_reductions_fit_the_rows() -> None:
    """Or the error says what is to be given."""
    table = np.ones((2, 3))
    updates = Updates(norms=table, previous_norms=table, layer_cosines=table, token_cosines=table)
    with pytest.raises(OptionError, match=r"`updates` .* of `\(2, 3\)` norms. Give those of `\(2, 1\)`"):
        sample(1, 2, reductions=Reductions(updates=updates))
    with pytest.raises(OptionError, match="has `1` rows. Give one per token: `2` or more"):
        sample(1, 2, reductions=distribution(entropy=[1.0]).reductions)


def test_functions_of_groups_return_one_number_each() -> None:
    """Those that return too few are refused, and what is no number too."""

    def group(returned: Any) -> Score:
        return Score(name="own", function=lambda _: returned, needs_norms=False, compares_responses=True)

    candidates = [sample(1), sample(2)]
    assert score_samples(group([3, None]), candidates) == [3, None]
    assert score_samples(group([]), []) == []
    for wrong in ([1], [1, 2, 3]):
        with pytest.raises(OptionError, match=f"`own` returned {len(wrong)} values. Return one for each of 2"):
            score_samples(group(wrong), candidates)
    with pytest.raises(OptionError, match="`own` returned 1 values"):
        score_samples(group(2.0), candidates)
    with pytest.raises(OptionError, match="`own` returned `'much'`"):
        score_samples(group([1, "much"]), candidates)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=7), st.floats(-2, 2))
def test_ranks_are_added_as_borda_does(values: list[tuple[int, int]], weight: float) -> None:
    """Ties share their points, and the parts stay as they are."""
    candidates = [sample(1 + norm, logprobs=[-float(logprob)]) for norm, logprob in values]
    weights = {"tail": 1.0, "mean_logprob": weight}
    found = score_all(weights, candidates, "ranks")
    columns = [[float(norm) for norm, _ in values], [-float(logprob) for _, logprob in values]]
    assert found.scores == pytest.approx(reference_borda(columns, list(weights.values())))
    assert found.parts == score_all(weights, candidates).parts


def test_selections_ask_for_what_scores_read() -> None:
    """And for nothing else; a function of the user's has to say so, since an engine may not be able to."""
    needs = {
        "self_certainty": (True, False, False),
        "relative_update": (False, True, False),
        "consensus": (False, False, True),
        "mean": (False, False, False),
    }
    for name, expected in needs.items():
        selection = Selection(score=name)
        assert (selection.needs_distribution, selection.needs_updates, selection.needs_mean_states) == expected
    own = Score(
        name="own", function=lambda one: one.distribution.entropy[-1], needs_norms=False, needs_distribution=True
    )
    assert Selection(score=own).needs_distribution
    assert not Selection(score=len).needs_distribution
    assert Selection(score={"edis": 1, "coe_r": 1}).needs_mean_states
    assert [Selection(score=name).needs_lens for name in ("settling", "agreement", "edis")] == [True, True, False]


def test_a_combination_is_named() -> None:
    """Anything else is refused."""
    assert Selection(combine="ranks").to_dict()["combine"] == "ranks"
    with pytest.raises(OptionError, match="`combine='rank'`.*Did you mean `ranks`|`combine='rank'`"):
        Selection(combine="rank")  # type: ignore[arg-type]

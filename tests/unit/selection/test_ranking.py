"""Responses are ranked as their documentation says: by tier, score, support and vote."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.errors import OptionError
from langnorm.scores.samples import Sample
from langnorm.scores.scaling import length_correlation
from langnorm.selection.options import VOTES, Selection
from langnorm.selection.ranking import Candidate, Ranking, by_score, by_vote, rank_candidates
from tests.reference.ranking import (
    reference_agreement,
    reference_by_score,
    reference_by_vote,
    reference_majority,
    reference_order,
    reference_support,
    reference_tokens_saved,
    reference_votes,
)

REASONS = ["stop", "tool_calls", "end_turn", "length", "MAX_TOKENS", "pruned"]
# No difference of small whole numbers is exactly one of these many standard deviations: rounding decides nothing.
NEARS = [0.0, 0.13, 0.37, 0.71, 2.9]


def given_score(sample: Sample) -> float | None:
    """Return the number that a test gave the response."""
    return sample.norms[0][0] if sample.norms else None


def candidate(score: float | None, answer: str | None, reason: str = "stop", tokens: int = 10) -> Candidate:
    """Return a response with this score."""
    rows = () if score is None else ((score,),)
    return Candidate(Sample(rows, (9,)), answer, tokens, reason)


def ranked(candidates: Sequence[Candidate], **options: Any) -> Ranking:
    """Return the ranking by the scores that the test gave."""
    return rank_candidates(Selection(**{"score": given_score} | options), candidates)


candidates_of_a_prompt = st.lists(
    st.builds(
        candidate,
        st.none() | st.integers(0, 4).map(float),
        st.sampled_from([None, "1", "2", "3"]),
        st.sampled_from(REASONS) | st.just("stop"),
        st.integers(1, 30),
    ),
    min_size=1,
    max_size=8,
)
keeps = st.sampled_from([0.01, 0.1, 0.28, 0.5, 0.7, 1])


@given(candidates_of_a_prompt, st.sampled_from(VOTES), keeps, st.sampled_from(NEARS))
def test_rankings_are_those_of_the_reference(candidates: list[Candidate], vote: str, keep: float, near: float) -> None:
    """Whatever is tied, cut off, stopped, unread or unscored."""
    found = ranked(candidates, vote=vote, keep=keep, near=near)
    reasons = [one.finish_reason for one in candidates]
    scores = [None if one.finish_reason == "pruned" else given_score(one.sample) for one in candidates]
    votes = reference_votes([one.answer for one in candidates], reasons)
    order = reference_order(scores, [one.answer for one in candidates], reasons, vote, keep, near)
    lengths = [one.tokens for one in candidates]
    assert list(found.order) == order
    assert list(found.scores) == scores
    assert found.parts == {"given_score": scores}
    assert [one.vote for one in found.candidates] == votes
    assert list(found.supports) == reference_support(votes)
    assert found.majority == reference_majority(order, votes)
    assert found.agreement == reference_agreement(order, votes)
    assert abs(found.tokens_saved - reference_tokens_saved(lengths, reasons)) <= 0.5
    assert found.length_correlation == length_correlation(scores, lengths)
    assert sorted(found.order) == list(range(len(candidates)))
    assert found.best == order[0]
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()


@given(candidates_of_a_prompt, st.sampled_from(["none", "majority"]), st.randoms(use_true_random=False))
def test_the_order_of_sampling_decides_only_between_equals(candidates: list[Candidate], vote: str, random: Any) -> None:
    """Shuffled, the best one has the same tier, score and support."""

    def best(ranking: Ranking) -> tuple:
        return ranking.candidates[ranking.best].tier, ranking.scores[ranking.best], ranking.supports[ranking.best]

    assert best(ranked(random.sample(candidates, len(candidates)), vote=vote)) == best(ranked(candidates, vote=vote))


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.sampled_from("abc")), min_size=1, max_size=10),
    st.floats(0, 3),
    st.sampled_from(VOTES),
)
def test_neither_near_ties_nor_votes_lose_a_response(pairs, near: float, vote: str) -> None:
    """With scores of any kind; without both the order is that of the scores, and after a vote equal answers follow."""
    scores, answers = zip(*pairs, strict=True)
    found = ranked([candidate(*pair) for pair in pairs], near=near, vote=vote)
    assert sorted(found.order) == list(range(len(pairs)))
    strict = ranked([candidate(*pair) for pair in pairs], near=0)
    assert [scores[i] for i in strict.order] == sorted(scores, reverse=True)
    if vote != "none":
        in_order = [answers[i] for i in found.order]
        assert [answer for answer, _ in itertools.groupby(in_order)] == list(dict.fromkeys(in_order))


@given(st.lists(st.none() | st.integers(0, 3).map(float), min_size=1, max_size=7), st.sampled_from(NEARS), st.data())
def test_both_sorts_are_those_of_the_reference(scores: list[float | None], near: float, data: st.DataObject) -> None:
    """Also on some of the responses only, and on orders that are not those of the scores."""
    some = data.draw(st.lists(st.sampled_from(range(len(scores))), unique=True))
    supports = data.draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores)))
    assert by_score(sorted(some), scores, supports, near) == reference_by_score(sorted(some), scores, supports, near)
    votes = data.draw(st.lists(st.sampled_from([None, "a", "b"]), min_size=len(scores), max_size=len(scores)))
    for vote in VOTES:
        selection = Selection(vote=vote, keep=0.4)
        assert by_vote(some, selection, votes, scores) == reference_by_vote(some, scores, votes, vote, 0.4)


def test_the_best_score_is_first() -> None:
    """Of equal ones, the one that was sampled first."""
    found = ranked([candidate(1, "a"), candidate(3, "b"), candidate(3, "c"), candidate(2, "d")], near=0)
    assert found.order == (1, 2, 3, 0)
    assert (found.best, found.agreement, found.majority) == (1, 0.25, "b")


def test_an_odd_one_out_with_a_barely_higher_score_loses() -> None:
    """Near-duplicates score alike, and their answer is usually the right one."""
    candidates = [candidate(5, "1"), candidate(4.99, "2"), candidate(4.98, "2"), candidate(1, "2")]
    assert ranked(candidates).order == (1, 2, 0, 3)
    assert ranked(candidates, near=0).order == (0, 1, 2, 3)
    assert ranked([candidate(5, "1"), *[candidate(4, "2")] * 3]).best == 0  # this one is far above


def test_a_response_far_below_is_no_tie_by_way_of_others() -> None:
    """Each is compared with the best that is left, not with its neighbour."""
    scores = [1.0, 0.9, 0.8, 0.7, -1.0]
    found = by_score(range(5), scores, [1, 1, 1, 4, 1], near=0.2)  # 0.2 standard deviations are 0.15
    assert found == [0, 1, 3, 2, 4]


@pytest.mark.parametrize(("vote", "best"), [("none", 0), ("majority", 3), ("weighted", 0), ("filtered", 1)])
def test_votes(vote: str, best: int) -> None:
    """Three weak votes are a majority, weigh less than one good response, and do not count where half is filtered."""
    scores = [10, 6, 1, 1.1, 1, 6]
    answers = ["a", "b", "c", "c", "c", "b"]
    found = ranked(list(map(candidate, scores, answers)), vote=vote, near=0)
    assert found.best == best  # of an answer's responses, the one with the best score
    assert found.majority == "c"
    assert found.agreement == {"a": 1 / 6, "b": 2 / 6, "c": 3 / 6}[answers[found.best]]
    assert found.to_dict()["agrees"] is (vote == "majority")


def test_weights_of_votes_are_the_exponentials_of_standardised_scores() -> None:
    """With z = 1 and -1 one good vote outweighs seven bad ones, but not eight: e squared is 7.4."""
    for num_bad, winner in ((7, "good"), (8, "bad")):
        # As many of either score keep the deviation at 1; the good ones else vote for nothing twice.
        good = [candidate(1, "good"), *[candidate(1, f"other {i}") for i in range(num_bad - 1)]]
        found = ranked([*good, *[candidate(-1, "bad")] * num_bad], vote="weighted", near=0)
        assert found.candidates[found.best].answer == winner


def test_ties_between_answers_go_to_the_best_response() -> None:
    """In every vote; a response without an answer does not take part, however good it is."""
    candidates = [candidate(1, "a"), candidate(2, "b"), candidate(2, "b"), candidate(3, "a"), candidate(9, None)]
    assert ranked(candidates, vote="majority").order == (3, 0, 1, 2, 4)
    assert ranked(candidates, vote="none").order[0] == 4
    found = ranked(candidates, vote="filtered", keep=0.75)
    assert found.order == (1, 2, 3, 0, 4)  # of four votes three count, and the second one for "a" does not
    assert (found.majority, found.agreement) == ("b", 0.5)


@pytest.mark.parametrize(("keep", "num_kept"), [(0.28, 7), (0.55, 14), (0.04, 1), (1e-12, 1), (0.041, 2), (1, 25)])
def test_the_share_that_votes_is_rounded_up(keep: float, num_kept: int) -> None:
    """As it is written: 0.28 of 25 are 7, though as floats they are a little more."""
    for place in range(2, 25):
        # Two equal votes among answers that are all different win where both count.
        candidates = [candidate(-i, "pair" if i in (1, place) else str(i)) for i in range(25)]
        best = ranked(candidates, vote="filtered", keep=keep, near=0).best
        assert candidates[best].answer == ("pair" if place < num_kept else "0")


@pytest.mark.parametrize("vote", VOTES)
def test_a_response_that_was_cut_off_neither_wins_nor_votes(vote: str) -> None:
    """Though it has the best score, and would have the majority with it."""
    cut = [candidate(9, "b", "length"), candidate(8, "b", "MAX_TOKENS"), candidate(8, "b", "content_filter")]
    stopped = candidate(9, "b", "pruned")
    found = ranked([stopped, *cut, candidate(1, "a"), candidate(0, "b", "tool_calls"), candidate(2, None)], vote=vote)
    assert set(found.order[:3]) == {4, 5, 6}
    assert found.order[3:] == (1, 2, 3, 0)
    assert found.supports == (0, 0, 0, 0, 1, 1, 0)
    assert found.majority == "a"
    assert found.agreement == (0 if vote == "none" else 0.5)


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "end_turn", "STOP", "stop_sequence", "eos_token"])
def test_every_other_reason_is_an_end(reason: str) -> None:
    """Other models have their own words for it, and their answers vote."""
    assert candidate(1, "a", reason).vote == "a"


@pytest.mark.parametrize("vote", VOTES)
def test_when_all_are_cut_off_the_score_decides(vote: str) -> None:
    """Nobody votes, so there is neither a majority nor agreement."""
    found = ranked([candidate(1, "a", "length"), candidate(2, "b", "length"), candidate(1, "a", "length")], vote=vote)
    assert found.order == (1, 0, 2)
    assert (found.majority, found.agreement, found.to_dict()["agrees"]) == (None, None, None)
    assert found.supports == (0, 0, 0)


@pytest.mark.parametrize("vote", VOTES)
@pytest.mark.parametrize("answer", ["a", None])
def test_a_single_response_is_the_best(vote: str, answer: str | None) -> None:
    """With or without an answer."""
    found = ranked([candidate(None, answer)], vote=vote, n=1)
    assert found.order == (0,)
    assert found.agreement == (1 if answer else None)
    assert (found.length_correlation, found.majority) == (None, answer)


@pytest.mark.parametrize("vote", VOTES)
def test_without_answers_the_score_decides(vote: str) -> None:
    """Then nobody votes either."""
    assert ranked([candidate(1, None), candidate(3, None), candidate(2, None)], vote=vote).order == (1, 2, 0)


@pytest.mark.parametrize("vote", VOTES)
def test_without_a_score_support_decides(vote: str) -> None:
    """Of equally supported answers, the first; where half is filtered, the better supported half counts."""
    found = ranked([candidate(9, answer) for answer in "abcbc"], score=None, vote=vote)
    assert found.order == ((1, 2, 3, 4, 0) if vote == "none" else (1, 3, 2, 4, 0))
    assert found.parts == {}
    assert found.to_dict()["score"] is None
    assert [one["scores"] for one in found.to_dict()["candidates"]] == [{}] * 5


def test_responses_that_cannot_be_scored_are_last_of_their_tier() -> None:
    """They vote; where votes are weighted, they have no weight unless nobody has a score."""
    candidates = [candidate(None, "a"), candidate(1, "b"), candidate(None, "a"), candidate(2, "c", "length")]
    assert ranked(candidates).order == (1, 0, 2, 3)
    assert ranked(candidates, vote="majority").order == (0, 2, 1, 3)
    assert ranked(candidates, vote="weighted").order == (1, 0, 2, 3)
    assert ranked([candidate(None, "b"), *[candidate(None, "a")] * 2], vote="weighted").order == (1, 2, 0)


def test_votes_without_any_score_weigh_the_same() -> None:
    """Then weighing them is counting them."""
    votes = ["a", "b", "b"]
    assert by_vote(range(3), Selection(vote="weighted"), votes, [None] * 3) == [1, 2, 0]
    assert by_vote(range(3), Selection(vote="weighted"), votes, [1.0, None, None]) == [0, 1, 2]


def test_scores_that_follow_the_lengths_are_warned_of() -> None:
    """From five responses on: of fewer, one in three is in line by chance. The warning names the correlation."""
    for num, sign in ((4, 1), (5, 1), (5, -1)):
        found = ranked([candidate(sign * i, "a", tokens=10 + i) for i in range(num)])
        assert found.length_correlation == pytest.approx(sign)
        assert len(found.warnings) == (num == 5)
        assert all(f"{sign:+.2f}" in warning for warning in found.warnings)
    # One that was stopped early has no score, and one that cannot be scored neither.
    for other in (candidate(9, "a", "pruned"), candidate(None, "a")):
        warnings = ranked([*[candidate(i, "a", tokens=10 + i) for i in range(4)], other]).warnings
        assert not any("lengths" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("reasons", "warning"),
    [
        (["length"] * 2 + ["stop"], "2 of 3 were cut off at max_tokens. They have no vote: raise `max_tokens`."),
        (["MAX_TOKENS", "content_filter", "stop"], "2 of 3 were cut off at max_tokens (1 of them by a filter)."),
        (["content_filter", "stop", "stop"], "1 of 3 were cut off by a filter. They have no vote."),
    ],
)
def test_those_cut_off_are_counted(reasons: list[str], warning: str) -> None:
    """And what to do about it is said."""
    found = ranked([candidate(i, "a", reason) for i, reason in enumerate(reasons)])
    assert found.warnings[0].startswith(warning)
    assert found.to_dict()["cut_off"] == sum(reason != "stop" for reason in reasons)
    assert found.to_dict()["warnings"] == found.warnings


def test_those_without_an_answer_are_counted() -> None:
    """Those that were cut off are not among them: they have no vote anyway."""
    candidates = [candidate(1, None), candidate(2, "a"), candidate(3, None, "length"), candidate(4, None)]
    found = ranked(candidates, answer="number")
    assert found.to_dict()["without_answer"] == 2
    assert "2 of 4 have no answer that `answer='number'` finds, and so no vote." in found.warnings


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([0.0, 0.0, 0.0], "is 0 for all of them"),
        ([0.5, 0.5 + 1e-17], "is 0.5 for all of them"),
        ([None, None], "has no value for any of them"),
        ([0.0, 0.1], None),
        ([None, 0.1], None),
        ([0.0], None),
    ],
)
def test_a_score_that_does_not_tell_candidates_apart_is_warned_of(scores: list[float | None], said: str | None) -> None:
    """The first candidate would win without a word; what decides in place of the score is said."""
    found = ranked([candidate(score, answer) for score, answer in zip(scores, "abc", strict=False)])
    assert len(found.warnings) == (said is not None)
    assert all(f"`given_score` does not tell the candidates apart: it {said}" in warning for warning in found.warnings)


def test_equal_scores_of_equal_texts_are_no_surprise() -> None:
    """Nor is it one that without a score nothing is told apart by scores."""
    same = Candidate(Sample(((1.0,),), (9,)), "a", 3, "stop", text="It is a.")
    assert ranked([same, same]).warnings == []
    other = Candidate(Sample(((1.0,),), (9,)), "a", 3, "stop", text="It is a, too.")
    assert len(ranked([same, other]).warnings) == 1
    assert ranked([same, other], score=None).warnings == []


def test_where_scores_are_equal_support_decides() -> None:
    """The answer that most give is ahead of the one that was sampled first."""
    assert ranked([candidate(0, "a"), candidate(0, "b"), candidate(0, "b")]).order == (1, 2, 0)


def test_candidates_carry_their_texts() -> None:
    """In the order of sampling."""
    found = ranked([Candidate(Sample(((1.0,),), (9,)), "a", 3, "stop", text=text) for text in ("It is a.", "a")])
    assert [one["text"] for one in found.to_dict()["candidates"]] == ["It is a.", "a"]


def test_the_warning_begins_above_four_fifths() -> None:
    """A correlation of exactly 0.8 is no reason yet."""
    lengths = [10, 20, 30, 40, 50]
    for scores, rho in (([2, 1, 4, 3, 5], 0.8), ([1, 2, 4, 3, 5], 0.9)):
        found = ranked([candidate(score, "a", tokens=length) for score, length in zip(scores, lengths, strict=True)])
        assert found.length_correlation == pytest.approx(rho)
        assert len(found.warnings) == (rho > 0.8)


def test_tokens_saved_are_those_up_to_the_mean_length_of_the_others() -> None:
    """Those cut off count among the others; one that was stopped beyond their mean saves nothing."""
    candidates = [candidate(1, "a", tokens=20), candidate(1, "a", "length", 40)]
    stopped = [candidate(1, None, "pruned", 8), candidate(1, None, "pruned", 35), candidate(1, None, "pruned", 10)]
    assert ranked([*candidates, *stopped]).tokens_saved == 22 + 20
    assert ranked(candidates).tokens_saved == 0
    assert ranked(stopped).tokens_saved == 0


def keys_of(value: Any) -> set[str]:
    """Return the keys of all dicts in a value."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("options", [{}, {"score": None}, {"prune": "halving"}, {"vote": "weighted", "near": 0}])
def test_the_dict_is_plain_json(options: dict[str, Any]) -> None:
    """LangChain merges entries of lists that have a key `index`, so there is none."""
    found = ranked([candidate(1, "a"), candidate(2, None, "pruned"), candidate(None, "b", "length")], **options)
    stored = found.to_dict()
    assert json.loads(json.dumps(stored, allow_nan=False)) == stored
    assert "index" not in keys_of(stored)
    assert stored.keys() >= {"n", "score", "vote", "answer", "keep", "near", "prune"}
    assert (stored["chosen"], stored["order"], stored["tokens"]) == (0, [0, 2, 1], 30)
    assert stored["tokens_saved"] == (0 if options.get("prune") else None)
    assert [one["finish_reason"] for one in stored["candidates"]] == ["stop", "pruned", "length"]


def test_scores_with_weights_are_standardised_and_added() -> None:
    """The dict has each of them as it is, and their sum; those stopped early are in none."""
    logprobs = [(-1.0,), (-3.0,), (-2.0,), (-2.0,)]
    norms = [2.0, 4.0, 3.0, 100.0]
    samples = [Sample([(norm,)], (9,), logprobs=values) for norm, values in zip(norms, logprobs, strict=True)]
    reasons = ["stop", "stop", "stop", "pruned"]
    candidates = [Candidate(one, "a", 1, reason) for one, reason in zip(samples, reasons, strict=True)]
    found = ranked(candidates, score={"mean_logprob": 2.0, "mean": 0.5})
    step = math.sqrt(1.5)
    assert found.scores == pytest.approx((1.5 * step, -1.5 * step, 0, None))
    assert found.order == (0, 2, 1, 3)
    assert found.parts == {"mean_logprob": [-1, -3, -2, None], "mean": pytest.approx([-step, step, 0, None])}
    assert found.to_dict()["score"] == {"mean_logprob": 2.0, "mean": 0.5}
    assert found.to_dict()["candidates"][0]["scores"] == pytest.approx({"mean_logprob": -1, "mean": -step})


def test_what_a_score_lacks_is_said() -> None:
    """A response without thresholds cannot be compared with them; one that was stopped early need not be."""
    with pytest.raises(OptionError, match="compares norms with thresholds"):
        ranked([candidate(1, "a")], score="rate")
    assert ranked([candidate(1, "a", "pruned")], score="rate").scores == (None,)


def test_responses_that_are_the_same_have_the_same_score() -> None:
    """What rounding makes of a duplicate elsewhere in a batch orders nothing: the first one comes first."""
    values = (-0.5, -0.3, -0.2999999, -0.7)
    keys = ("a", "b", "b", None)
    candidates = [
        Candidate(Sample((), (), logprobs=[value]), "7", 1, "stop", key)
        for value, key in zip(values, keys, strict=True)
    ]
    ranking = rank_candidates(Selection(n=4, score="mean_logprob"), candidates)
    assert ranking.scores == (-0.5, -0.3, -0.3, -0.7)
    assert ranking.order == (1, 2, 0, 3)

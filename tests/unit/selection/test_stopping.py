"""No more samples are drawn when those that there are settle the answer, by the rule that was asked for."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Completion, Request
from langnorm.engines.samples_to_draw import SamplesToDraw
from langnorm.errors import OptionError
from langnorm.scores.samples import Sample
from langnorm.selection.options import Selection
from langnorm.selection.ranking import Candidate, leading_answer, rank_candidates, settled_ranking
from langnorm.selection.stopping import STOP_RULES, Lead, Stopping, by_beta, by_confidence, by_window
from tests.reference.stopping import (
    reference_beta,
    reference_confidence,
    reference_weights,
    reference_window,
)

answers = st.lists(st.none() | st.sampled_from("abc"), max_size=14)


@given(answers)
def test_beta_is_the_integral_of_the_reference(votes: list[str | None]) -> None:
    """The closed form has the mass that a numerical integration finds, and the same leading answer."""
    found, expected = by_beta(votes), reference_beta(votes)
    if expected is None:
        assert found is None
    else:
        assert found
        assert found.answer == expected[0]
        assert found.value == pytest.approx(expected[1], abs=1e-9)


@pytest.mark.parametrize(
    ("votes", "is_enough"), [("aaa", False), ("aaaa", True), ("aaaab", False), ("a" * 9 + "bb", True)]
)
def test_beta_stops_beyond_95_percent(votes: str, is_enough: bool) -> None:
    """Four of a kind are enough (31/32), three are not (15/16); the threshold is that of Adaptive-Consistency."""
    stopping = Stopping(rule="beta")
    assert stopping.is_enough(stopping.lead(list(votes))) is is_enough
    assert by_beta(list("aaaa")) == Lead("a", 31 / 32)


@given(answers.filter(len), st.integers(2, 6))
def test_a_window_is_unanimous_as_in_the_reference(votes: list[str | None], window: int) -> None:
    """Whatever was drawn before, and never with an answer that cannot be read."""
    stopping = Stopping(rule="unanimous", window=window)
    lead, expected = stopping.lead(votes), reference_window(votes, min(window, len(votes)))
    assert stopping.is_enough(lead) is (expected is not None)
    if expected is not None:
        assert lead == Lead(expected, 1.0)


@given(st.lists(st.tuples(st.none() | st.sampled_from("abc"), st.floats(0.01, 9)), max_size=14))
def test_confidence_is_the_share_of_the_reference(drawn: list[tuple[str | None, float]]) -> None:
    """In count times weight, with unreadable answers each on its own."""
    votes, weights = [vote for vote, _ in drawn], [weight for _, weight in drawn]
    found, expected = by_confidence(votes, weights), reference_confidence(votes, weights)
    if not expected:
        assert found is None
        return
    assert found
    assert found.value == pytest.approx(max(expected.values()), rel=1e-9)
    assert expected[found.answer] == pytest.approx(found.value, rel=1e-9)


@pytest.mark.parametrize("rule", STOP_RULES)
def test_unreadable_answers_settle_nothing(rule: Any) -> None:
    """However many there are; and they stand against the leading answer."""
    stopping = Stopping(rule=rule)
    assert not stopping.is_enough(stopping.lead([None] * 40, [1.0] * 40))
    assert not stopping.is_enough(stopping.lead([*"aaaa", None], [1.0] * 5))
    assert stopping.is_enough(stopping.lead(list("aaaaa"), [1.0] * 5))


def test_leads_name_the_first_of_equals() -> None:
    """By count, by mass and in a window."""
    assert by_window(list("ba" * 3), 6) == Lead("b", 0.5)
    assert by_beta(list("ba")) == Lead("b", 0.5)
    assert by_confidence(list("ba"), [1.0, 1.0]) == Lead("b", 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": "unanimus"}, "Did you mean `unanimous`"),
        ({"stop": True}, "`stop=True` is not allowed"),
        ({"window": 0}, "`window=0` is not allowed. Use 1 or above"),
        ({"stop": "beta", "window": 0}, "`window=0` is not allowed. Use 1 or above"),
        ({"stop": "unanimous", "window": 1}, "Use 2 or above"),
        ({"stop": "confidence", "window": 1}, "a single sample agrees with itself"),
        ({"stop": "unanimous", "stop_above": 0.9}, "which has no threshold"),
        ({"stop_above": 0.9}, "None without `stop`"),
        ({"stop": "beta", "stop_above": 1}, "`stop_above=1` is not allowed"),
        ({"stop": "beta", "stop_above": 0}, "`stop_above=0` is not allowed"),
        ({"stop": "beta", "prune": "halving"}, "Leave one of the two out"),
        ({"stop": "confidence", "score": None}, "Name a score"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    """When the selection is made, with what would be right."""
    with pytest.raises(OptionError, match=message):
        Selection(**options)


def test_options_say_what_stops() -> None:
    """In plain types, and only where there may be fewer than n."""
    selection = Selection(n=32, stop="beta", stop_above=0.9, window=4)
    assert selection.to_dict()["stop"] == {"rule": "beta", "window": 4, "above": 0.9}
    assert selection.may_stop
    assert not Selection(n=5, stop="unanimous").may_stop
    assert not Selection(n=32).may_stop
    assert Selection().to_dict()["stop"] is None


def candidate(answer: str | None, logprob: float = -1.0, finish_reason: str = "stop") -> Candidate:
    """Returns a candidate with a log-probability for a score."""
    return Candidate(Sample((), (), logprobs=[logprob]), answer, 1, finish_reason)


@given(st.lists(st.tuples(st.none() | st.sampled_from("ab"), st.integers(-5, 0)), min_size=1, max_size=9))
def test_candidates_weigh_by_their_scores(drawn: list[tuple[str | None, int]]) -> None:
    """By exp of the score in standard deviations over all that were drawn, as in the reference."""
    selection = Selection(stop="confidence", score="mean_logprob")
    lead = leading_answer(selection, [candidate(vote, logprob) for vote, logprob in drawn])
    weights = reference_weights([float(logprob) for _, logprob in drawn])
    expected = reference_confidence([vote for vote, _ in drawn], weights)
    assert (lead.value if lead else 0) == pytest.approx(max(expected.values(), default=0), rel=1e-9)


def test_answers_that_were_cut_off_settle_nothing() -> None:
    """They have no vote, and so stand against the others."""
    selection = Selection(stop="unanimous", score="mean_logprob")
    lead = leading_answer(selection, [*[candidate("a")] * 4, candidate("a", finish_reason="length")])
    assert lead == Lead("a", 0.8)


@pytest.mark.parametrize("vote", ["none", "majority"])
def test_what_settles_it_is_kept(vote: Any) -> None:
    """The answer that ended the draw is ahead, best response first, whatever the score and the votes say."""
    selection = Selection(n=32, stop="unanimous", window=2, score="mean_logprob", vote=vote)
    drawn = [candidate("b", -0.1), candidate("b", -0.2), candidate("c", -0.3), candidate("b", -0.4)]
    drawn += [candidate("a", -2.0), candidate("a", -1.0)]
    found = settled_ranking(rank_candidates(selection, drawn))
    assert found.order[:2] == (5, 4)
    assert found.settled == Lead("a", 1.0)
    said = found.to_dict()
    assert (said["drawn"], said["samples_saved"], said["settled"]) == (6, 26, {"answer": "a", "value": 1.0})


def test_all_that_were_drawn_are_ranked_as_ever() -> None:
    """Where all n were drawn, the score and the votes decide."""
    drawn = [candidate("b", -0.1), candidate("b", -0.2), candidate("a", -2.0), candidate("a", -1.0)]
    ranking = rank_candidates(Selection(n=4, stop="unanimous", window=2, score="mean_logprob"), drawn)
    assert settled_ranking(ranking) is ranking
    assert ranking.order == (0, 1, 3, 2)
    said = ranking.to_dict()
    assert (said["drawn"], said["samples_saved"], said["settled"]) == (4, 0, None)
    said = settled_ranking(rank_candidates(Selection(n=32, score="mean_logprob"), drawn)).to_dict()
    assert (said["drawn"], said["samples_saved"], said["settled"]) == (4, None, None)


class Until:
    """Windows that suffice at a number of samples.

    Args:
        size: Of a window.
        enough: So many samples are enough.
    """

    def __init__(self, size: int, enough: float) -> None:
        self.size = size
        self.asked: list[int] = []
        self._enough = enough

    def is_enough(self, completions: Any) -> bool:
        """Returns whether there are so many."""
        self.asked.append(len(completions))
        return len(completions) >= self._enough


def drawn_portions(requests: list[Request]) -> list[list[tuple[int, int]]]:
    """Returns (request, sample) pairs as they are handed out, all of a portion having ended before the next."""
    samples, portions = SamplesToDraw(requests), []
    while portion := samples.next_portion():
        portions.append([(number, sequence.sample) for number, sequence in portion])
        for number, sequence in portion:
            samples.add(number, Completion([sequence.sample], [""], "stop"))
    numbers = [[c.token_ids[0] for c in response.completions] for response in samples.responses()]
    assert numbers == [list(range(len(of_one))) for of_one in numbers]
    return portions


def test_windows_of_several_requests_run_together() -> None:
    """A portion has a window of each that goes on, and all samples of those without windows."""
    first, second = Until(2, 4), Until(3, math.inf)
    requests = [
        Request((1,), Sampling(n=9), windows=first),
        Request((1,), Sampling(n=2)),
        Request((1,), Sampling(n=7), windows=second),
    ]
    assert drawn_portions(requests) == [
        [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)],
        [(0, 2), (0, 3), (2, 3), (2, 4), (2, 5)],
        [(2, 6)],
    ]
    assert first.asked == [2, 4]
    assert second.asked == [3, 6]  # nothing is left to decide about after the last


def test_large_windows_come_in_portions_and_decide_whole(monkeypatch) -> None:
    """No decision is made on half of a window."""
    monkeypatch.setattr("langnorm.engines.samples_to_draw._MOST_QUEUED", 3)
    windows = Until(4, 8)
    requests = [Request((1,), Sampling(n=20), windows=windows, max_batch_size=2)]
    assert [len(portion) for portion in drawn_portions(requests)] == [3, 1, 3, 1]
    assert windows.asked == [4, 8]

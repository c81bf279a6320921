"""Responses stop early by the rule that was asked for, and the best never do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.engines.requests import Completion, FinishReason, Partial, TokenLogprob
from langnorm.engines.sample_group import SampleGroup
from langnorm.errors import OptionError
from langnorm.reductions import Reductions
from langnorm.selection.pruning import RULES, Pruning
from tests.reference.pruning import reference_below, reference_halved

# Quarters: all quantiles of whole numbers are exact.
QUANTILES = [0.0, 0.25, 0.5, 1.0]
REDUCTIONS = Reductions(mean_states=np.array([[1.0, 2.0]]))
responses = st.lists(st.tuples(st.none() | st.integers(-2, 2).map(float), st.booleans()), max_size=9)


@given(responses, st.integers(1, 4), st.integers(1, 4), st.sampled_from(QUANTILES))
def test_both_rules_are_those_of_the_reference(drawn, least: int, first: int, quantile: float) -> None:
    """With ties, with responses that cannot be scored, finished and running ones."""
    scores, running = [score for score, _ in drawn], [is_running for _, is_running in drawn]
    halving = Pruning(least=least)
    assert halving.stopped(scores, running) == reference_halved(scores, running, least)
    threshold = Pruning(rule="threshold", least=least, first=first, quantile=quantile)
    assert threshold.stopped(scores, running) == reference_below(scores, running, least, first, quantile)


@given(
    st.lists(st.tuples(st.none() | st.floats(-5, 5), st.booleans()), max_size=9),
    st.builds(
        Pruning, rule=st.sampled_from(RULES), least=st.integers(1, 4), first=st.integers(1, 4), quantile=st.floats(0, 1)
    ),
)
def test_the_best_and_the_finished_go_on(drawn: list[tuple[float | None, bool]], pruning: Pruning) -> None:
    """However often a rule is asked: at least `least` with a score are left, and all that are finished or unscored."""
    left = drawn
    for _ in range(5):
        stopped = pruning.stopped([score for score, _ in left], [is_running for _, is_running in left])
        assert all(left[i][1] and left[i][0] is not None for i in stopped)
        left = [one for i, one in enumerate(left) if i not in stopped]
    known = sorted((score for score, _ in drawn if score is not None), reverse=True)
    assert (
        sorted((score for score, _ in left if score is not None), reverse=True)[: pruning.least]
        == (known[: pruning.least])
    )


def test_halving_leaves_the_better_half() -> None:
    """Of an odd number the one in the middle too; of equals the first."""
    assert Pruning().stopped([1, 5, 3, 4, 2], [True] * 5) == [0, 4]
    assert Pruning().stopped([1, 1, 1, 1], [True] * 4) == [2, 3]
    assert Pruning().stopped([1, 2, 3], [True] * 3) == [0]
    assert Pruning().stopped([1, 2], [True] * 2) == []
    assert Pruning(least=1).stopped([1, 2], [True] * 2) == [0]
    assert Pruning(least=4).stopped([1, 2, 3, 4], [True] * 4) == []
    assert Pruning().stopped([], []) == []


def test_halving_counts_finished_responses_and_stops_none_of_them() -> None:
    """Good ones that have ended push running ones into the lower half; bad ones fill it."""
    assert Pruning().stopped([9, 8, 1, 2], [False, False, True, True]) == [2, 3]
    assert Pruning().stopped([1, 2, 9, 8], [False, False, True, True]) == []


def test_responses_without_a_score_are_left_alone() -> None:
    """Nor are they counted: of the four others, two are left."""
    assert Pruning().stopped([None, 4, 3, 2, 1, None], [True] * 6) == [3, 4]
    assert Pruning(rule="threshold", first=1).stopped([None, None, 5, 4, 1], [False, True, False, True, True]) == [4]
    assert Pruning().stopped([None] * 4, [True] * 4) == []


def test_the_threshold_waits_for_the_first_to_finish() -> None:
    """Those without a score do not count as finished."""
    pruning = Pruning(rule="threshold", first=3, quantile=0.5, least=1)
    assert pruning.stopped([5, 6, 1, 2], [False, False, True, True]) == []
    assert pruning.stopped([5, 6, None, 1, 2], [False, False, False, True, True]) == []
    assert pruning.stopped([5, 6, 7, 1, 6, 5.9], [False, False, False, True, True, True]) == [3, 5]


def test_a_score_at_the_threshold_is_not_below_it() -> None:
    """With 0 the threshold is the lowest finished score, with 1 the highest."""
    running = [False, False, False, True, True, True]
    for quantile, stopped in ((0, [3]), (0.5, [3, 4]), (1, [3, 4, 5])):
        pruning = Pruning(rule="threshold", quantile=quantile, least=1)
        assert pruning.stopped([1, 2, 3, 0.9, 1, 2], running) == stopped


def test_defaults() -> None:
    """They are those of the documentation."""
    assert Pruning() == Pruning(rule="halving", every=64, least=2, first=3, quantile=0.25)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rule", "third"),
        ("rule", None),
        ("rule", []),
        *[(name, value) for name in ("every", "least", "first") for value in (0, -1, 1.0, True, "1", None)],
        *[("quantile", value) for value in (-0.1, 1.1, float("nan"), float("inf"), True, "0.5", None)],
    ],
)
def test_values_outside_the_allowed_are_refused(name: str, value: Any) -> None:
    """The error shows what was given and says what to use."""
    with pytest.raises(OptionError, match=rf"`{name}=.*` of `prune` is not allowed\. Use ") as caught:
        Pruning(**{name: value})
    assert repr(value) in str(caught.value)


def test_misspelt_rules_get_a_hint() -> None:
    """The closest of the two."""
    with pytest.raises(OptionError, match='Use "halving" or "threshold". Did you mean `halving`?'):
        Pruning(rule="halvin")  # type: ignore[arg-type]


class LastOf:
    """A pruner that stops the last running one of those it sees, and notes what it saw."""

    every = 4

    def __init__(self) -> None:
        self.seen: list[list[Partial]] = []

    def stopped(self, samples: Sequence[Partial]) -> Sequence[int]:
        """Return the number of the last running one."""
        self.seen.append(list(samples))
        return [i for i, partial in enumerate(samples) if partial.is_running][-1:]


def partial(token_id: int, *, is_running: bool = True) -> Partial:
    """Return a sample whose one token tells it from others."""
    return Partial([token_id], [], [], is_running)


def completion(token_id: int, reason: FinishReason = "stop") -> Completion:
    """Return how a sample ended whose tokens tell it from others."""
    logprobs = [TokenLogprob(-1.0), TokenLogprob(-2.0)]
    return Completion([token_id, 0], ["a", ""], reason, [[1.5]], logprobs=logprobs, reductions=REDUCTIONS)


def test_siblings_are_looked_at_now_and_then() -> None:
    """Every so many tokens, as the pruner says."""
    sample_group = SampleGroup(LastOf())
    assert [num_tokens for num_tokens in range(1, 13) if sample_group.is_due(num_tokens)] == [4, 8, 12]


def test_samples_are_named_by_their_numbers() -> None:
    """The pruner counts those it sees; in a batch under way there may be any."""
    pruner = LastOf()
    sample_group = SampleGroup(pruner)
    assert sample_group.stopped({7: partial(70), 3: partial(30), 5: partial(50, is_running=False)}) == [3]
    assert sample_group.stopped({7: partial(70, is_running=False)}) == []
    assert sample_group.stopped({}) == []
    assert [[one.token_ids for one in seen] for seen in pruner.seen] == [[[70], [30], [50]], [[70]], []]


def test_samples_of_earlier_batches_are_compared_with() -> None:
    """With all that was kept of them; those that were stopped are not, nor is one twice that runs again."""
    pruner = LastOf()
    sample_group = SampleGroup(pruner)
    sample_group.end(0, completion(10))
    sample_group.end(1, completion(11, "length"))
    sample_group.end(2, completion(12, "pruned"))
    assert sample_group.stopped({3: partial(13), 1: partial(21)}) == [1]
    first, *others = pruner.seen[0]
    assert first == Partial([10, 0], [[1.5]], [-1.0, -2.0], is_running=False, reductions=REDUCTIONS)
    assert [one.token_ids for one in others] == [[13], [21]]


def test_requests_do_not_know_of_each_other() -> None:
    """Each has a group of its own."""
    pruner = LastOf()
    SampleGroup(pruner).end(0, completion(10))
    SampleGroup(pruner).stopped({1: partial(11)})
    assert [one.token_ids for one in pruner.seen[0]] == [[11]]

"""Prompts are cut into runs such that a beginning which they share is run once, where that pays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from langnorm.engines.transformers.prefill_plan import LEAST_SAVED, Run, common_beginnings, is_worth_it, padded_passes

LONG = tuple(range(LEAST_SAVED))

pieces = st.sampled_from([LONG, LONG[::-1], (1, 2, 3), (4,)])
prompts_of = st.lists(
    st.lists(pieces, min_size=1, max_size=4).map(lambda parts: sum(parts, ())), max_size=6, unique=True
)


@given(prompts_of)
def test_all_is_run_once_in_the_end(prompts) -> None:
    """Runs begin where the tokens before have been run, and their prompts agree on all of their tokens."""
    known = [0] * len(prompts)
    num_run = 0
    while runs := common_beginnings(prompts, known):
        for run in runs:
            assert len({prompts[number][: run.end] for number in run.members}) == 1
            assert all(known[number] == run.start < run.end for number in run.members)
            assert (len(run.members) - 1) * run.num_tokens >= LEAST_SAVED
            for number in run.members:
                known[number] = run.end
            num_run += run.num_tokens
        assert len({number for run in runs for number in run.members}) == sum(len(run.members) for run in runs)
    assert num_run <= sum(map(len, prompts))


def test_what_all_share_is_run_first_and_then_what_some_share() -> None:
    """Each stage of a tree that pays is a run."""
    prompts = [(*LONG, *LONG, 1), (*LONG, *LONG, 2), (*LONG, 3), (*LONG, 4)]
    assert common_beginnings(prompts, [0] * 4) == [Run(0, LEAST_SAVED, (0, 1, 2, 3))]
    assert common_beginnings(prompts, [LEAST_SAVED] * 4) == [Run(LEAST_SAVED, 2 * LEAST_SAVED, (0, 1))]
    assert common_beginnings(prompts, [2 * LEAST_SAVED] * 2 + [LEAST_SAVED] * 2) == []


def test_a_short_beginning_does_not_hide_longer_ones_behind_it() -> None:
    """Three tokens of a chat template do not pay; what half of the prompts share after them does."""
    prompts = [(7, *LONG, 1), (7, *LONG, 2), (7, *LONG[::-1], 1), (7, *LONG[::-1], 2)]
    assert common_beginnings(prompts, [0] * 4) == [Run(0, LEAST_SAVED + 1, (0, 1)), Run(0, LEAST_SAVED + 1, (2, 3))]


def test_a_prompt_may_be_the_beginning_of_another() -> None:
    """It ends with the run."""
    assert common_beginnings([LONG, (*LONG, 1)], [0, 0]) == [Run(0, LEAST_SAVED, (0, 1))]


@given(st.lists(st.integers(1, 1000), max_size=16))
def test_runs_of_similar_length_are_padded_together(lengths) -> None:
    """No padding is as long as what a pass costs, and nobody is left out."""
    runs = [Run(0, length, (number,)) for number, length in enumerate(lengths)]
    passes = padded_passes(runs)
    assert sorted(run.members for of_pass in passes for run in of_pass) == [run.members for run in runs]
    for of_pass in passes:
        assert max(run.num_tokens for run in of_pass) == of_pass[0].num_tokens
        assert of_pass[0].num_tokens - min(run.num_tokens for run in of_pass) < LEAST_SAVED


def test_passes_must_save_more_than_they_cost() -> None:
    """Against what is run without them."""
    passes = [[Run(0, 100, (0,)), Run(0, 90, (1,))], [Run(0, 10, (2,))]]
    assert not is_worth_it(passes, 210 + 2 * LEAST_SAVED - 1)
    assert is_worth_it(passes, 210 + 2 * LEAST_SAVED)

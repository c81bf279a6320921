"""Arithmetic problems are exact, and every line of their working is true or corrected."""

from __future__ import annotations

import random
import re
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.abacus.generator import arithmetic, corpus
from langnorm.abacus.generator.arithmetic import LEVELS, draw_steps
from langnorm.abacus.generator.stories import expression
from langnorm.abacus.generator.working import work

_EQUATION = re.compile(r"(?<![\d*/+-] )(\d+(?: [-+*/] \d+)+(?: = \d+(?: [-+*/] \d+)*)+)")


def value_of(text: str) -> float:
    """Return the value of an expression of digits and operators."""
    assert re.fullmatch(r"[\d\s+*/()-]+", text)
    return eval(text)


@given(st.integers(), st.integers(1, 12))
def test_steps_are_exact_and_bounded(seed: int, num_steps: int) -> None:
    """Each step starts from the result before, is right, and stays between 0 and 9,999."""
    steps = draw_steps(random.Random(seed), num_steps)
    assert len(steps) == num_steps
    for step, after in pairwise(steps):
        assert after.left == step.result
    for step in steps:
        assert value_of(f"{step.left} {step.operator} {step.right}") == step.result
        assert 0 <= step.result <= 9_999
        assert 0 <= step.right <= 999


@given(st.integers(), st.integers(1, 12))
def test_an_expression_has_the_value_of_its_steps(seed: int, num_steps: int) -> None:
    """Parentheses stand where order needs them."""
    steps = draw_steps(random.Random(seed), num_steps)
    text = expression(random.Random(seed), steps).replace("×", "*").replace("x", "*").replace("÷", "/")
    assert value_of(text) == steps[-1].result


@given(st.integers(), st.integers(1, 8))
def test_the_working_is_true_or_corrected(seed: int, num_steps: int) -> None:
    """Every chain of equations holds; only a step with a slip has wrong ones, and its line ends right."""
    rng = random.Random(seed)
    steps = draw_steps(rng, num_steps)
    working = work(rng, steps)
    lines = working.text.split("\n")
    assert len(lines) == num_steps
    wrong_lines = 0
    for line, step in zip(lines, steps, strict=True):
        chains = [match.group(1).split(" = ") for match in _EQUATION.finditer(line)]
        assert chains, line
        is_right = [len({value_of(side) for side in chain}) == 1 for chain in chains]
        wrong_lines += not all(is_right)
        assert is_right[-1], line
        numbers = re.findall(r"\d+", line)
        assert str(step.result) in numbers
    assert wrong_lines <= working.has_slip


def test_all_styles_and_slips_occur() -> None:
    """Samples of one problem can differ for good reasons; about a tenth have a slip."""
    rng = random.Random(0)
    workings = [work(rng, draw_steps(rng, 5)) for _ in range(2_000)]
    assert {working.style for working in workings} == {"terse", "state", "split", "check"}
    assert 0.05 < sum(working.has_slip for working in workings) / len(workings) < 0.15


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_levels_have_their_number_of_steps(level: arithmetic.Level) -> None:
    """Easy is 1 to 3 steps, hard is 4 to 12."""
    rng = random.Random(0)
    found = {arithmetic.draw(rng, "train", level).details["num_steps"] for _ in range(500)}
    assert found == set(LEVELS[level])


def test_answers_without_thinking_have_no_working() -> None:
    """The same problems can be answered directly."""
    example = arithmetic.draw(random.Random(0), "train", enable_thinking=False)
    assert "reasoning_content" not in example.messages[-1]
    assert example.answer is not None
    assert example.answer in example.messages[-1]["content"]


def test_splits_do_not_overlap() -> None:
    """A problem is in one split only."""
    found = {
        split: {corpus.problem_of(e) for e in corpus.held_out(partial(arithmetic.draw, level="easy"), 300, split)}
        for split in ("train", "dev", "test")
    }
    assert not found["train"] & found["dev"]
    assert not found["train"] & found["test"]
    assert not found["dev"] & found["test"]


def test_the_corpus_is_the_same_for_the_same_seed() -> None:
    """Training text depends on the seed alone."""
    first, second = ([corpus.draw(random.Random(5), "train") for _ in range(20)] for _ in range(2))
    assert first == second
    assert {example.skill for example in (corpus.draw(random.Random(i), "train") for i in range(60))} == {
        "arithmetic",
        "tools",
        "chat",
    }

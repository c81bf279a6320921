"""Arithmetic problems: a chain of exact integer steps, told as a task and worked in one of four styles.

Steps decide the difficulty: `"easy"` has 1 to 3 of them, `"hard"` 4 to 12, with more long numbers, fewer additions
and longer products. Numbers stay between 0 and 9,999, operands at or below 999.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langnorm.abacus.data.base import Example, Split
from langnorm.abacus.data.stories import tell
from langnorm.abacus.data.working import work

Level = Literal["easy", "hard"]

LEVELS: dict[Level, range] = {"easy": range(1, 4), "hard": range(4, 13)}

Operator = Literal["+", "-", "*", "/"]

_OPERATOR_WEIGHTS: dict[Level, Mapping[Operator, float]] = {
    "easy": {"+": 4.0, "-": 3.0, "*": 2.0, "/": 2.0},
    "hard": {"+": 2.0, "-": 4.0, "*": 4.0, "/": 4.0},
}
_DIGIT_WEIGHTS: dict[Level, tuple[int, int, int]] = {"easy": (1, 4, 3), "hard": (1, 3, 5)}  # of 1, 2 and 3 digits
_MAX_LONG_FACTOR: dict[Level, int] = {"easy": 99, "hard": 499}  # that is multiplied by two digits
_MAX_VALUE = 9_999
_MAX_OPERAND = 999


@dataclass(frozen=True, slots=True)
class Step:
    """One exact step `left operator right = result`; `left` is the result of the step before."""

    left: int
    operator: Operator
    right: int
    result: int


def draw(
    rng: random.Random,
    split: Split,  # noqa: ARG001 (problems are told apart by their text)
    level: Level | None = None,
    *,
    enable_thinking: bool | None = None,
) -> Example:
    """Return an arithmetic problem with its worked solution.

    Args:
        rng: The only source of randomness.
        split: Unused here.
        level: `"easy"`, `"hard"` or, by default, either (two fifths easy).
        enable_thinking: Whether the steps are worked out; by default mostly, for easy problems less often.

    Returns:
        An example whose `answer` is the result in digits; `details` has `level`, `num_steps`, `story`,
        and, when it is worked, `style` and `has_slip`.
    """
    level = level or ("easy" if rng.random() < 0.4 else "hard")
    steps = draw_steps(rng, rng.choice(LEVELS[level]), level)
    story = tell(rng, steps)
    answer = str(steps[-1].result)
    details: dict[str, Any] = {"level": level, "num_steps": len(steps), "story": story.kind}
    if enable_thinking is None:
        # Answers without working are short and mostly unlearnable for long chains.
        enable_thinking = rng.random() < (0.8 if level == "easy" else 0.95)
    reply: dict[str, str] = {"role": "assistant", "content": story.answer.format(answer)}
    if enable_thinking:
        working = work(rng, steps)
        reply["reasoning_content"] = working.text
        details |= {"style": working.style, "has_slip": working.has_slip}
    return Example(
        skill="arithmetic",
        messages=(*story.messages, reply),
        enable_thinking=enable_thinking,
        answer=answer,
        details=details,
    )


def draw_steps(rng: random.Random, num_steps: int, level: Level) -> tuple[Step, ...]:
    """Return a chain of `num_steps` steps whose results all are whole and between 0 and 9,999."""
    value = _draw_number(rng, level, 1)
    steps = []
    for _ in range(num_steps):
        step = _draw_step(rng, level, value)
        steps.append(step)
        value = step.result
    return tuple(steps)


def _draw_number(rng: random.Random, level: Level, low: int, high: int = _MAX_OPERAND) -> int:
    """Return a number in [low, high] whose number of digits is drawn first, so that small ones are common."""
    largest = rng.choices((9, 99, 999), weights=_DIGIT_WEIGHTS[level])[0]
    return rng.randint(low, max(low, min(high, largest)))


def _draw_step(rng: random.Random, level: Level, value: int) -> Step:
    weights = _OPERATOR_WEIGHTS[level]
    divisors = [d for d in range(2, 10) if value >= 2 * d and value % d == 0]
    chances: dict[Operator, float] = {
        "+": weights["+"] if value <= _MAX_OPERAND else 1.0,
        "-": weights["-"] if value > 1 else 0.0,
        "*": weights["*"] if 2 <= value <= 999 else 0.0,
        "/": weights["/"] if divisors else 0.0,
    }
    operator = rng.choices(list(chances), weights=list(chances.values()))[0]
    match operator:
        case "+":
            right = _draw_number(rng, level, 1, min(_MAX_OPERAND, _MAX_VALUE - value))
            return Step(value, "+", right, value + right)
        case "-":
            # A large value comes down quickly, so that later steps are of every kind again.
            low = min(value, 100) if value > _MAX_OPERAND else 1
            right = _draw_number(rng, level, low, min(_MAX_OPERAND, value))
            return Step(value, "-", right, value - right)
        case "*":
            is_long = 10 <= value <= _MAX_LONG_FACTOR[level] and rng.random() < 0.5
            right = rng.randint(11, min(99, _MAX_VALUE // value)) if is_long else rng.randint(2, 9)
            return Step(value, "*", right, value * right)
        case _:
            right = rng.choice(divisors)
            return Step(value, "/", right, value // right)

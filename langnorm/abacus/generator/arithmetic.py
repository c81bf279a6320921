"""Arithmetic problems: a chain of exact integer steps, told as a task and worked in one of four styles.

The number of steps decides the difficulty: 1 to 3 is `"easy"`, 4 to 12 is `"hard"`. Numbers stay between
0 and 9,999, operands at or below 999.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal

from langnorm.abacus.generator.base import Example, Operator, Split, Step
from langnorm.abacus.generator.stories import tell
from langnorm.abacus.generator.working import work

Level = Literal["easy", "hard"]

LEVELS: dict[Level, range] = {"easy": range(1, 4), "hard": range(4, 13)}

Weights = Mapping[Operator, float]

_WEIGHTS: Weights = {"+": 4.0, "-": 3.0, "*": 2.0, "/": 2.0}
_PRACTICE_WEIGHTS: Weights = {"+": 2.0, "-": 4.0, "*": 4.0, "/": 4.0}
_MAX_VALUE = 9_999
_MAX_OPERAND = 999


def draw(
    rng: random.Random,
    split: Split,  # noqa: ARG001 (problems are told apart by their text)
    level: Level | None = None,
    *,
    enable_thinking: bool | None = None,
    weights: Weights | None = None,
) -> Example:
    """Return an arithmetic problem with its worked solution.

    Args:
        rng: The only source of randomness.
        split: Unused here.
        level: `"easy"`, `"hard"` or, by default, either (two fifths easy).
        enable_thinking: Whether the steps are worked out; by default seven times in eight.
        weights: How often each operator is drawn where it is possible; by default additions come most often.

    Returns:
        An example whose `answer` is the result in digits; `details` has `level`, `num_steps`, `story`,
        and, when it is worked, `style` and `has_slip`.
    """
    level = level or ("easy" if rng.random() < 0.4 else "hard")
    steps = draw_steps(rng, _draw_num_steps(rng, level), weights or _WEIGHTS)
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


def practice(rng: random.Random, split: Split) -> Example:
    """Return a worked problem in which the hardest single steps come most often: all but additions."""
    return draw(rng, split, enable_thinking=True, weights=_PRACTICE_WEIGHTS)


def draw_steps(rng: random.Random, num_steps: int, weights: Weights = _WEIGHTS) -> tuple[Step, ...]:
    """Return a chain of `num_steps` steps whose results all are whole and between 0 and 9,999."""
    value = _draw_number(rng, 1)
    steps = []
    for _ in range(num_steps):
        step = _draw_step(rng, value, weights)
        steps.append(step)
        value = step.result
    return tuple(steps)


def _draw_num_steps(rng: random.Random, level: Level) -> int:
    numbers = LEVELS[level]
    if level == "easy":
        return rng.choice(numbers)
    # Long chains are rarer than short ones, and cost more tokens each.
    return rng.choices(numbers, weights=[numbers.stop - n for n in numbers])[0]


def _draw_number(rng: random.Random, low: int, high: int = _MAX_OPERAND) -> int:
    """Return a number in [low, high] whose number of digits is drawn first, so that small ones are common."""
    digits = rng.choices((9, 99, 999), weights=(1, 4, 3))[0]
    return rng.randint(low, max(low, min(high, digits)))


def _draw_step(rng: random.Random, value: int, weights: Weights) -> Step:
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
            right = _draw_number(rng, 1, min(_MAX_OPERAND, _MAX_VALUE - value))
            return Step(value, "+", right, value + right)
        case "-":
            # A large value comes down quickly, so that later steps are of every kind again.
            low = min(value, 100) if value > _MAX_OPERAND else 1
            right = _draw_number(rng, low, min(_MAX_OPERAND, value))
            return Step(value, "-", right, value - right)
        case "*":
            is_long = 10 <= value <= 99 and rng.random() < 0.5
            right = rng.randint(11, 99) if is_long else rng.randint(2, 9)
            return Step(value, "*", right, value * right)
        case _:
            right = rng.choice(divisors)
            return Step(value, "/", right, value // right)

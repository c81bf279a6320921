"""Ways of working through a chain of steps, one line each; all are valid, so samples differ for a reason."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from langnorm.abacus.generator.base import Step

Style = Literal["terse", "state", "split", "check"]

_STYLE_WEIGHTS: dict[Style, int] = {"terse": 35, "state": 25, "split": 20, "check": 20}
_SLIP_SHARES: dict[Style, float] = {"terse": 0.08, "state": 0.08, "split": 0.08, "check": 0.2}
_MAX_SPLIT_STEPS = 8  # splitting is the longest style; longer chains would be mostly that

_VERBS = {"+": "add", "-": "subtract", "*": "multiply by", "/": "divide by"}
_INVERSES = {"+": "-", "-": "+", "*": "/", "/": "*"}


@dataclass(frozen=True, slots=True)
class Working:
    """A worked solution.

    Attributes:
        text: What goes between the thinking tags.
        style: How it was worked.
        has_slip: Whether one step is first wrong and then corrected.
    """

    text: str
    style: Style
    has_slip: bool


def work(rng: random.Random, steps: Sequence[Step]) -> Working:
    """Return the steps worked out in a style drawn at random; about a tenth have a slip that is corrected."""
    weights = dict(_STYLE_WEIGHTS)
    if len(steps) > _MAX_SPLIT_STEPS:
        weights["split"] = 0
    style = rng.choices(list(weights), weights=list(weights.values()))[0]
    slip_at = rng.randrange(len(steps)) if rng.random() < _SLIP_SHARES[style] else None
    if slip_at is not None and not _can_slip(steps[slip_at], style):
        slip_at = None
    line = {"terse": _terse, "state": _state, "split": _split, "check": _check}[style]
    lines = []
    for number, step in enumerate(steps):
        slip = _draw_slip(rng, step) if number == slip_at else None
        lines.append(line(step, slip))
    return Working("\n".join(lines), style, slip_at is not None)


def _equation(step: Step, result: int | None = None) -> str:
    """Return `left operator right = ... = result`; products of two long numbers go through two parts."""
    if result is None and step.operator == "*" and step.left > 9 and step.right > 9:
        tens, ones = step.right // 10 * 10, step.right % 10
        parts = [step.left * part for part in (tens, ones) if part]
        if len(parts) == 2:
            return f"{_plain(step)} = {parts[0]} + {parts[1]} = {step.result}"
    return f"{_plain(step)} = {step.result if result is None else result}"


def _plain(step: Step) -> str:
    return f"{step.left} {step.operator} {step.right}"


def _terse(step: Step, slip: int | None) -> str:
    if slip is None:
        return _equation(step)
    return f"{_plain(step)} = {slip}. Wait, {_equation(step)}"


def _state(step: Step, slip: int | None) -> str:
    start = f"Now {step.left}, {_VERBS[step.operator]} {step.right}: "
    if slip is None:
        return f"{start}{_equation(step)}."
    return f"{start}{_plain(step)} = {slip}. No, {_equation(step)}."


def _split(step: Step, slip: int | None) -> str:
    if slip is not None:
        return f"{_plain(step)} = {slip}? No. {_split(step, None)}"
    parts = _place_values(step.right)
    if step.operator in "+-" and len(parts) > 1:
        value, equations = step.left, []
        for part in parts:
            after = value + part if step.operator == "+" else value - part
            equations.append(f"{value} {step.operator} {part} = {after}")
            value = after
        return f"{_plain(step)}: {', '.join(equations)}"
    factors = _place_values(step.left)
    if step.operator == "*" and step.right < 10 and len(factors) > 1:
        products = [factor * step.right for factor in factors]
        equations = [f"{factor} * {step.right} = {factor * step.right}" for factor in factors]
        total = products[0]
        for product in products[1:]:
            equations.append(f"{total} + {product} = {total + product}")
            total += product
        return f"{_plain(step)}: {', '.join(equations)}"
    return _equation(step)


def _check(step: Step, slip: int | None) -> str:
    if not _is_checkable(step):
        return f"{_equation(step)}."
    inverse = _INVERSES[step.operator]
    proof = f"{_equation(step)}. Check: {step.result} {inverse} {step.right} = {step.left}."
    if slip is None:
        return proof
    undone = {"+": slip - step.right, "-": slip + step.right, "*": slip // step.right, "/": slip * step.right}
    wrong = f"{_plain(step)} = {slip}. Check: {slip} {inverse} {step.right} = {undone[step.operator]}"
    return f"{wrong}, not {step.left}. Again: {proof}"


def _is_checkable(step: Step) -> bool:
    """Dividing by a two-digit number is harder than the product that it would check."""
    return not (step.operator == "*" and step.right > 9)


def _can_slip(step: Step, style: Style) -> bool:
    return style != "check" or _is_checkable(step)


def _draw_slip(rng: random.Random, step: Step) -> int:
    """Return a wrong result of the kind that people make: a forgotten carry, a digit or a factor off by one."""
    if step.operator == "*":
        return step.result + rng.choice((-1, 1)) * step.right
    offsets = [1, -1] if step.operator == "/" else [10, -10, 1, -1, 100, -100]
    # A slip in a sum must leave both the result and what the check finds at zero or above.
    floor = step.right if step.operator == "+" else 0
    return rng.choice([step.result + o for o in offsets if step.result + o >= floor])


def _place_values(number: int) -> list[int]:
    """Return the parts of `number` by decimal place, largest first: 305 gives [300, 5]."""
    text = str(number)
    parts = [int(digit) * 10 ** (len(text) - 1 - place) for place, digit in enumerate(text)]
    return [part for part in parts if part]

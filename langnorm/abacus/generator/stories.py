"""Ways of telling a chain of steps: instructions, an expression, a story, a comparison of people, a dialogue."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langnorm.abacus.generator.base import Step
from langnorm.abacus.generator.story_themes import WORDS, Theme

Kind = Literal["instructions", "expression", "story", "people", "dialogue"]

_ANSWER = "The answer is {}."


@dataclass(frozen=True, slots=True)
class Story:
    """A told problem.

    Attributes:
        messages: The conversation up to and with the question.
        answer: The reply's sentence, with `{}` for the result.
        kind: How it is told.
    """

    messages: tuple[dict[str, Any], ...]
    answer: str
    kind: Kind


def tell(rng: random.Random, steps: Sequence[Step]) -> Story:
    """Return the steps told in a way drawn at random."""
    weights: dict[Kind, float] = {
        "instructions": 3,
        "expression": 3,
        "story": 5,
        "people": 2,
        "dialogue": 0.5,
    }
    if len(steps) > 8:
        weights["people"] = 0  # nobody keeps track of nine people
    kind = rng.choices(list(weights), weights=list(weights.values()))[0]
    match kind:
        case "instructions":
            return _user(_instructions(rng, steps), _ANSWER, kind)
        case "expression":
            return _user(_expression_question(rng, steps), _ANSWER, kind)
        case "story":
            return _story(rng, steps)
        case "people":
            return _people(rng, steps)
        case _:
            return _dialogue(rng, steps)


def expression(rng: random.Random, steps: Sequence[Step]) -> str:
    """Return the steps as one expression, with just the parentheses that order needs."""
    times = rng.choice(("*", "*", "x", "×"))
    divided = rng.choice(("/", "/", "÷"))
    space = "" if rng.random() < 0.25 else " "
    text, is_sum = str(steps[0].left), False
    for step in steps:
        if step.operator in "*/" and is_sum:
            text = f"({text})"
        sign = {"*": times, "/": divided}.get(step.operator, step.operator)
        text = f"{text}{space}{sign}{space}{step.right}"
        is_sum = step.operator in "+-"
    return text


def _user(text: str, answer: str, kind: Kind) -> Story:
    return Story(({"role": "user", "content": text},), answer, kind)


def _expression_question(rng: random.Random, steps: Sequence[Step]) -> str:
    template = rng.choice(
        (
            "What is {}?", "Compute {}.", "Calculate {}.", "How much is {}?", "{} = ?", "{}", "Evaluate {}.",
            "Work out {}.", "What does {} equal?", "Please compute {}.", "what is {}", "What's {}?",
            "Can you work out {}?", "Find the value of {}.", "Solve {}.", "Tell me what {} is.",
        )
    )  # fmt: skip
    return template.format(expression(rng, steps))


def _instructions(rng: random.Random, steps: Sequence[Step]) -> str:
    start = rng.choice(
        ("Start with {}.", "Take {}.", "Begin with the number {}.", "Take the number {}.", "Start at {}.")
    )
    parts = [start.format(steps[0].left)]
    parts += [rng.choice(WORDS.orders[step.operator]).format(step.right) for step in steps]
    parts.append(
        rng.choice(("What is the result?", "What do you get?", "What number is it?", "Give the result.",
                    "What is it now?", "Which number comes out?"))
    )  # fmt: skip
    return " ".join(parts)


def _story(rng: random.Random, steps: Sequence[Step]) -> Story:
    theme = rng.choice(WORDS.themes)
    words = _Cast(rng, theme)
    rest = list(steps)
    sentences = []
    if theme.groups and steps[0].operator == "*" and rng.random() < 0.7:
        first = rest.pop(0)
        sentences.append(words.fill(rng.choice(theme.groups), first.left, first.right))
    else:
        sentences.append(words.fill(rng.choice(theme.starts), steps[0].left))
    for step in rest:
        if rng.random() < 0.18:
            sentences.append(words.fill(rng.choice(WORDS.distractors), rng.randint(2, 60)))
        sentences.append(words.fill(rng.choice(theme.events[step.operator]), step.right))
    if rng.random() < 0.15:
        sentences.insert(1, words.fill(rng.choice(WORDS.distractors), rng.randint(2, 60)))
    sentences.append(words.fill(rng.choice(theme.questions)))
    answer = words.fill(rng.choice(theme.answers), "{}") if rng.random() < 0.5 else _ANSWER
    return _user(" ".join(sentences), answer, "story")


class _Cast:
    """The person, friend and object of one story, put into its templates."""

    def __init__(self, rng: random.Random, theme: Theme) -> None:
        self.person, self.friend = rng.sample(WORDS.people, 2)
        self.object = rng.choice(theme.objects or WORDS.objects)

    def fill(self, template: str, *numbers: int | str) -> str:
        return template.format(*numbers, P=self.person, F=self.friend, O=self.object)


def _people(rng: random.Random, steps: Sequence[Step]) -> Story:
    names = rng.sample(WORDS.people, len(steps) + 1)
    thing = rng.choice(WORDS.objects)
    sentences = [f"{names[0]} has {steps[0].left} {thing}."]
    for step, name, previous in zip(steps, names[1:], names, strict=False):
        template = rng.choice(WORDS.comparisons[step.operator])
        sentences.append(template.format(step.right, name, previous, O=thing))
        if rng.random() < 0.12:
            sentences.append(rng.choice(WORDS.distractors).format(rng.randint(2, 60), P=name, F=previous, O=thing))
    sentences.append(rng.choice(("How many {} does {} have?", "So how many {} does {} have?")).format(
        thing, names[-1]
    ))  # fmt: skip
    answer = f"{names[-1]} has {{}} {thing}." if rng.random() < 0.5 else _ANSWER
    return _user(" ".join(sentences), answer, "people")


def _dialogue(rng: random.Random, steps: Sequence[Step]) -> Story:
    """Return a conversation whose last question starts from the answer that was given before."""
    first_value = steps[0].left
    before = rng.randint(1, max(1, first_value - 1))
    question = f"What is {before} + {first_value - before}?" if first_value > 1 else "What is 0 + 1?"
    orders = " ".join(rng.choice(WORDS.orders[step.operator]).format(step.right) for step in steps)
    follow_up = rng.choice(("{} What is it now?", "Now: {}", "{}", "Good. {} What do you get?"))
    messages = (
        {"role": "user", "content": question},
        {"role": "assistant", "content": _ANSWER.format(first_value)},
        {"role": "user", "content": follow_up.format(orders)},
    )
    return Story(messages, _ANSWER, "dialogue")

"""The mixes of skills, and the rule that keeps the splits apart."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count
from typing import Literal

from langnorm.abacus.generator import arithmetic, chat, tools
from langnorm.abacus.generator.base import Example, Split, split_of

Skill = Callable[[random.Random, Split], Example]
Mix = Literal["broad", "practice", "choice", "polish"]

# Shares of examples. By tokens the first two are about half arithmetic, two fifths tools and a tenth chat (a
# twentieth in practice), because tool schemas are long and small talk is short; the others are three fifths tools.
MIXES: dict[Mix, dict[Skill, float]] = {
    "broad": {arithmetic.draw: 0.53, tools.draw: 0.22, chat.draw: 0.25},
    "practice": {
        arithmetic.draw: 0.38,
        arithmetic.practice: 0.26,
        tools.draw: 0.09,
        tools.practice: 0.11,
        chat.draw: 0.16,
    },
    "choice": {
        arithmetic.draw: 0.26,
        arithmetic.practice: 0.22,
        tools.draw: 0.10,
        tools.choice: 0.32,
        chat.draw: 0.10,
    },
    "polish": {
        arithmetic.draw: 0.22,
        arithmetic.practice: 0.30,
        tools.draw: 0.14,
        tools.choice: 0.26,
        chat.draw: 0.08,
    },
}


def problem_of(example: Example) -> str:
    """Return the text that decides the split: all that users said."""
    return "\n".join(m["content"] for m in example.messages if m["role"] == "user")


def draw_from(skill: Skill, rng: random.Random, split: Split) -> Example:
    """Return an example of `skill` whose problem belongs to `split` and so to no other."""
    while True:
        example = skill(rng, split)
        if split_of(problem_of(example)) == split:
            return example


def draw(rng: random.Random, split: Split, mix: Mix = "broad") -> Example:
    """Return an example of the mix."""
    shares = MIXES[mix]
    skill = rng.choices(list(shares), weights=list(shares.values()))[0]
    return draw_from(skill, rng, split)


def held_out(skill: Skill, num_examples: int, split: Split = "test", seed: int = 0) -> Iterator[Example]:
    """Yield `num_examples` distinct problems of `skill`, the same ones for the same arguments."""
    rng = random.Random(f"{seed}/{split}")
    seen: set[str] = set()
    for _ in count():
        if len(seen) == num_examples:
            return
        example = draw_from(skill, rng, split)
        problem = problem_of(example)
        if problem not in seen:
            seen.add(problem)
            yield example

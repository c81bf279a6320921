"""The mix of skills, and the rule that keeps the splits apart."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

from langnorm.abacus.data import arithmetic, chat, chat_intents, tools
from langnorm.abacus.data.base import Example, Split, split_of

Skill = Callable[[random.Random, Split], Example]


def in_context(rng: random.Random, split: Split) -> Example:
    """Draw a problem or a piece of chat that comes after another exchange, under a system message, or both."""
    skill = rng.choice((arithmetic.draw, arithmetic.draw, chat.draw))
    example = skill(rng, split)
    messages = [message for message in example.messages if message["role"] != "system"]
    draw = rng.random()
    if draw < 0.7:
        earlier = arithmetic.draw(rng, split, "easy").messages if rng.random() < 0.5 else chat.small_talk_messages(rng)
        messages = [{"role": m["role"], "content": m["content"]} for m in earlier] + messages
    if draw > 0.4:
        messages.insert(0, {"role": "system", "content": rng.choice(chat_intents.SYSTEM_MESSAGES)})
    # Where an earlier answer may be that of a sum, training must learn from none: see `lessons`.
    return replace(example, skill="arithmetic", messages=tuple(messages))


SHARES: dict[Skill, float] = {
    arithmetic.draw: 0.31,
    tools.draw: 0.17,
    tools.choice: 0.20,
    chat.draw: 0.26,
    in_context: 0.06,
}
"""Shares of examples. By tokens they are about a third arithmetic, three fifths tools and a fifteenth chat, because
tool schemas are long and small talk is short."""


def problem_of(example: Example) -> str:
    """Return the text that decides the split: all that users said."""
    return "\n".join(m["content"] for m in example.messages if m["role"] == "user")


def draw_from(skill: Skill, rng: random.Random, split: Split) -> Example:
    """Return an example of `skill` whose problem belongs to `split` and so to no other."""
    while True:
        example = skill(rng, split)
        if split_of(problem_of(example)) == split:
            return example


def draw(rng: random.Random, split: Split) -> Example:
    """Return an example of a skill drawn by `SHARES`."""
    skill = rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
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

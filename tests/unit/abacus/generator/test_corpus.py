"""What the generator draws is fixed: models, profiles and figures in the documentation rest on it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterator
from functools import partial

from langnorm.abacus.generator import arithmetic, chat, corpus, tools
from langnorm.abacus.generator.base import Example, Split

SKILLS: tuple[corpus.Skill, ...] = (
    partial(arithmetic.draw, level="easy"),
    partial(arithmetic.draw, level="easy", enable_thinking=False),
    partial(arithmetic.draw, level="hard"),
    partial(arithmetic.draw, level="hard", enable_thinking=False),
    arithmetic.practice,
    tools.draw,
    partial(tools.draw, names="known"),
    partial(tools.draw, names="random"),
    tools.practice,
    tools.choice,
    chat.draw,
)


# Of each mix and seed, and of each skill. Of 20 problems drawn, one is for development and one for the test.
NUM_EXAMPLES: dict[Split, tuple[int, int]] = {"train": (150, 50), "dev": (8, 6), "test": (8, 6)}


def drawn_examples() -> Iterator[Example]:
    """Yield examples of every split: of every mix with two seeds, then of every skill alone."""
    for split, (num_of_mix, num_of_skill) in NUM_EXAMPLES.items():
        for mix in corpus.MIXES:
            for seed in range(2):
                rng = random.Random(f"{mix}/{seed}")
                yield from (corpus.draw(rng, split, mix) for _ in range(num_of_mix))
        for skill in SKILLS:
            yield from corpus.held_out(skill, num_of_skill, split, seed=1)


def test_what_is_drawn_does_not_change() -> None:
    """Two thousand examples, the order of the keys of their tools included, have the digest they always had."""
    digest, num_examples = hashlib.sha256(), 0
    for example in drawn_examples():
        digest.update(json.dumps(dataclasses.asdict(example), ensure_ascii=False).encode() + b"\n")
        num_examples += 1
    assert num_examples == 2_010
    assert digest.hexdigest() == "36d0b2870292ca93cb977846835e36a7435d2bff493f6f68c839739098dd3181"

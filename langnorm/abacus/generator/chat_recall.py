"""Recalling what the user has told before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.abacus.generator.chat_content import FACTS, THOUGHTS, Fact, Phrasing
from langnorm.abacus.generator.chat_copying import repeat_turn
from langnorm.abacus.generator.chat_dialogues import Dialogue, Turn, draw_value, draw_wording
from langnorm.abacus.generator.chat_small_talk import small_talk

if TYPE_CHECKING:
    import random


def _tell(rng: random.Random, fact: Fact, value: str | int) -> Turn:
    phrasing = Phrasing(fact.statements)
    return Turn(
        draw_wording(rng, phrasing, value=value),
        fact.acknowledgement.format(value=value),
        rng.choice(THOUGHTS.tell),
    )


def _facts(rng: random.Random, number: int) -> list[Fact]:
    # People give their names more often than anything else.
    name, *others = FACTS
    while True:
        facts = [name] if rng.random() < 0.25 else []
        facts += rng.sample(others, number - len(facts))
        if sum(fact.pool == "colour" for fact in facts) <= 1:  # two spellings of one fact
            rng.shuffle(facts)
            return facts


def draw_introduce(rng: random.Random) -> Dialogue:
    """Draw a dialogue in which the user tells one fact."""
    (fact,) = _facts(rng, 1)
    return Dialogue("introduce", (_tell(rng, fact, draw_value(rng, fact.pool)),))


def draw_recall(rng: random.Random) -> Dialogue:
    """Draw a dialogue in which the user asks for a fact, mostly one that was told before."""
    facts = _facts(rng, rng.choices((1, 2, 3), weights=(60, 28, 12))[0])
    values = [draw_value(rng, fact.pool) for fact in facts]
    asked = rng.randrange(len(facts))
    fact, value = facts[asked], values[asked]
    phrasing = Phrasing(fact.questions, ("Okay, ", "Now, ", "Well, ", "So, "), (", Abacus",))
    question = draw_wording(rng, phrasing)
    answer = fact.answer.format(value=value)
    thought = rng.choice(THOUGHTS.recall).format(value=value)
    told = [_tell(rng, each, each_value) for each, each_value in zip(facts, values, strict=True)]

    if rng.random() < 0.08:
        del told[asked]
        if not told and rng.random() < 0.5:
            told = small_talk(rng)
        unknown = Turn(question, fact.unknown, rng.choice(THOUGHTS.unknown))
        return Dialogue("recall", (*told, unknown))
    if rng.random() < 0.12:
        # A statement without its mark would run into what follows it.
        statements = (turn.user if turn.user[-1] in ".!?" else turn.user + "." for turn in told)
        return Dialogue("recall", (Turn(" ".join((*statements, question)), answer, thought),))
    if len(told) == 2 and rng.random() < 0.3:
        together = " ".join(turn.user if turn.user[-1] in ".!?" else turn.user + "." for turn in told)
        told = [Turn(together, told[-1].answer)]
    turns = list(told)
    if rng.random() < 0.3:
        turns += small_talk(rng)
    if rng.random() < 0.1:
        turns.append(repeat_turn(rng))
    return Dialogue("recall", (*turns, Turn(question, answer, thought)))

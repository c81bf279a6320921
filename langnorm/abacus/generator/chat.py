"""Plain chat: small talk, copying, recalling, extracting to JSON, and declining everything else."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

from langnorm.abacus.generator.base import Example, Split
from langnorm.abacus.generator.chat_content import INTENTS, SYSTEM_MESSAGES, Intent
from langnorm.abacus.generator.chat_copying import draw_pick, draw_repeat, draw_reverse, draw_spell
from langnorm.abacus.generator.chat_dialogues import Dialogue
from langnorm.abacus.generator.chat_numbers import draw_compare, draw_count, draw_parity
from langnorm.abacus.generator.chat_recall import draw_introduce, draw_recall
from langnorm.abacus.generator.chat_records import draw_extract
from langnorm.abacus.generator.chat_small_talk import draw_refusal, intent_turn, small_talk

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

_SYSTEM_SHARE = 0.1
_EARLIER_SHARE = 0.1
_THINKING_SHARE = 0.5


def draw(rng: random.Random, split: Split) -> Example:
    """Draw one conversation.

    Args:
        rng: Source of randomness. The same state gives the same example.
        split: Split the example is for. Every split is drawn alike: the caller keeps those whose user text
            belongs to it.

    Returns:
        An example without tools, its answer the content of the last message.
    """
    del split
    dialogue = rng.choices(_DRAWERS, cum_weights=_CUMULATIVE_WEIGHTS)[0](rng)
    turns = dialogue.turns
    # Recalled facts come with earlier turns of their own.
    if len(turns) == 1 and rng.random() < _EARLIER_SHARE:
        turns = (*small_talk(rng), *turns)
    messages: list[dict[str, Any]] = []
    if rng.random() < _SYSTEM_SHARE:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_MESSAGES)})
    for turn in turns:
        messages.append({"role": "user", "content": turn.user})
        messages.append({"role": "assistant", "content": turn.answer})
    enable_thinking = rng.random() < _THINKING_SHARE
    if enable_thinking:
        messages[-1]["reasoning_content"] = turns[-1].thought
    return Example(
        skill="chat",
        messages=tuple(messages),
        enable_thinking=enable_thinking,
        answer=turns[-1].answer,
        details={"intent": dialogue.intent},
    )


def draw_small_talk(intent: Intent, rng: random.Random) -> Dialogue:
    """Draw a dialogue of one intent."""
    return Dialogue(intent.name, (intent_turn(rng, intent),))


_WEIGHTS: dict[Callable[[random.Random], Dialogue], float] = {
    draw_repeat: 20,
    draw_refusal: 15,
    draw_recall: 12,
    draw_extract: 12,
    draw_introduce: 1.6,
    draw_spell: 2.5,
    draw_reverse: 2.5,
    draw_pick: 3,
    draw_count: 2.5,
    draw_compare: 3,
    draw_parity: 2.5,
    **{partial(draw_small_talk, intent): intent.weight for intent in INTENTS.values()},
}
_DRAWERS = tuple(_WEIGHTS)
_CUMULATIVE_WEIGHTS = tuple(itertools.accumulate(_WEIGHTS.values()))

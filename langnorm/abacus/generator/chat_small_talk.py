"""Small talk, and declining everything that Abacus cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.abacus.generator.chat_content import INTENTS, REFUSALS, WORDS, Intent
from langnorm.abacus.generator.chat_dialogues import Dialogue, Turn, draw_wording

if TYPE_CHECKING:
    import random

_REFUSAL_WEIGHTS = [refusal.weight for refusal in REFUSALS]


def intent_turn(rng: random.Random, intent: Intent) -> Turn:
    """Draw a turn of one intent."""
    return Turn(
        draw_wording(rng, intent.phrasing, city=rng.choice(WORDS.cities)),
        rng.choice(intent.answers),
        rng.choice(intent.thoughts),
    )


def small_talk(rng: random.Random) -> list[Turn]:
    """Return one or two turns that may come before any other."""
    turns = []
    if rng.random() < 0.7:
        opening = ("greeting", "greeting_morning", "greeting_evening", "how_are_you", "identity")
        turns.append(intent_turn(rng, INTENTS[rng.choice(opening)]))
    if not turns or rng.random() < 0.4:
        following = ("how_are_you", "capabilities", "joke", "compliment", "thanks", "help", "human")
        turns.append(intent_turn(rng, INTENTS[rng.choice(following)]))
    # Other models' replies turn up in a history as well, and must not throw the model off.
    if rng.random() < 0.15:
        turns[0] = Turn(turns[0].user, rng.choice(("Hello.", "hello", "Hi!", "Okay.", "Yes?")))
    return turns


def draw_refusal(rng: random.Random) -> Dialogue:
    """Draw a dialogue in which Abacus declines a request."""
    refusal = rng.choices(REFUSALS, weights=_REFUSAL_WEIGHTS)[0]
    user = draw_wording(rng, refusal.phrasing, topic=rng.choice(refusal.topics))
    # Whole questions are topics too, and nothing is copied from here, so their case and marks may vary.
    if rng.random() < 0.15:
        user = user.lower()
    if rng.random() < 0.15:
        user = user.rstrip(".?!")
    return Dialogue("refusal", (Turn(user, refusal.answer, rng.choice(refusal.thoughts)),))

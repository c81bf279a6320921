"""The masks of the controls of a causal check: as many states as were of high norm, at other tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence

from langnorm.probes.causal_store import Outcome

CLASSES = ("number", "line break", "space", "symbol", "word", "part of a word")
"""What tokens are, as `class_of` tells them apart."""


def draw_mask(
    high: Outcome, classes: Sequence[str], layers: Sequence[int], rng: random.Random, *, is_matched: bool
) -> list[list[int]]:
    """Return for each layer as many tokens as were high there, at other places of an answer.

    Args:
        high: The answer whose tokens were shrunk.
        classes: Classes of the tokens of the answer that the mask is for, as far as it is known beforehand.
        layers: The layers.
        rng: Draws.
        is_matched: Whether tokens are replaced by such of the same class, where there are enough.
    """
    of_token: dict[int, list[int]] = {}
    for layer, tokens in high.shrunk.items():
        for token in tokens:
            of_token.setdefault(token, []).append(layer)
    places = rng.sample(range(len(classes)), len(classes))
    chosen: dict[int, int] = {}
    if is_matched:
        by_class: dict[str, list[int]] = {}
        for place in places:
            by_class.setdefault(classes[place], []).append(place)
        for token in rng.sample(sorted(of_token), len(of_token)):
            if free := by_class.get(high.classes[token]):
                chosen[token] = free.pop()
    used = set(chosen.values())
    rest = (place for place in places if place not in used)
    for token in sorted(of_token):
        if token not in chosen and (other := next(rest, None)) is not None:
            chosen[token] = other
    masks: dict[int, list[int]] = {layer: [] for layer in layers}
    for token, place in chosen.items():
        for layer in of_token[token]:
            masks[layer].append(place)
    return [sorted(masks[layer]) for layer in layers]


def class_of(text: str) -> str:
    """Return the class of a token by the text that became decodable with it."""
    core = text.strip()
    if not core:
        return CLASSES[1] if "\n" in text else CLASSES[2]
    if core.replace(",", "").replace(".", "").isdecimal():
        return CLASSES[0]
    if not any(character.isalnum() for character in core):
        return CLASSES[3]
    return CLASSES[4] if text[0].isspace() or core[0].isupper() else CLASSES[5]

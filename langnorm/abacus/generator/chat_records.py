"""Extracting the values of a sentence, or of a list of keys and values, to JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from langnorm.abacus.generator.chat_content import RECORDS, REQUESTS, THOUGHTS
from langnorm.abacus.generator.chat_dialogues import Dialogue, Turn, draw_value, draw_wording, invented_word

if TYPE_CHECKING:
    import random


def _stated_record(rng: random.Random) -> tuple[str, dict[str, str | int]]:
    """Return a sentence and everything that can be extracted from it, by the key to ask for it."""
    record = rng.choice(RECORDS)
    values = {name: draw_value(rng, pool) for name, pool in record.pools.items()}
    sentence = rng.choice(record.sentences).format(**values)
    return sentence, {rng.choice(record.keys[name]): value for name, value in values.items()}


def _listed_record(rng: random.Random) -> tuple[str, dict[str, str | int]]:
    """Return a list of random keys with their values, and these."""
    pools = ("word", "number", "code", "person", "city", "colour", "thing", "small", "word", "number")
    keys = dict.fromkeys(invented_word(rng) for _ in range(rng.randint(1, 4)))
    record = {key: draw_value(rng, rng.choice(pools)) for key in keys}
    forms = (("{} is {}", ", "), ("{}: {}", ", "), ("{} = {}", "; "), ("the {} is {}", " and "))
    form, separator = rng.choice(forms)
    listed = separator.join(form.format(key, value) for key, value in record.items())
    return listed[0].upper() + listed[1:] + "." if form.startswith("the") else listed + ".", record


def _shape(rng: random.Random, record: dict[str, str | int]) -> str:
    style = rng.choice(("...", "...", "...", '"..."', "type", "null"))
    holes = {key: type(value).__name__ for key, value in record.items()}
    names = {"str": "string", "int": "integer"}
    pairs = (f'"{key}": {names[kind] if style == "type" else style}' for key, kind in holes.items())
    return "{" + ", ".join(pairs) + "}"


def _listed_keys(rng: random.Random, record: dict[str, str | int]) -> str:
    noun = rng.choice(("key", "key", "field"))
    mark = rng.choice(("", "", "'", '"'))
    *front, last = (f"{mark}{key}{mark}" for key in record)
    return f"{noun}s {', '.join(front)} and {last}" if front else f"{noun} {last}"


def draw_extract(rng: random.Random) -> Dialogue:
    """Draw a dialogue in which values are to be extracted to JSON."""
    text, record = _listed_record(rng) if rng.random() < 0.35 else _stated_record(rng)
    size = len(record) if rng.random() < 0.75 else rng.randint(1, len(record))
    wanted = rng.sample(list(record), size) if rng.random() < 0.4 else list(record)[:size]
    record = {key: record[key] for key in wanted}
    keys = _listed_keys(rng, record)
    if rng.random() < 0.5:
        user = draw_wording(rng, REQUESTS.json_shape, text=text, shape=_shape(rng, record))
    else:
        user = draw_wording(rng, REQUESTS.json_keys, text=text, keys=keys)
    thought = rng.choice(THOUGHTS.json).format(keys=keys)
    return Dialogue("json", (Turn(user, json.dumps(record, ensure_ascii=False), thought),))

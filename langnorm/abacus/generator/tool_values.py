"""The pools that arguments and results of tools are drawn from, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langnorm.abacus.generator import names
from langnorm.abacus.generator.tables import load

if TYPE_CHECKING:
    import random
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class ValueLists:
    """Values to choose from, by the name of their pool."""

    lists: dict[str, tuple[str, ...]]


_LISTS = load("tool_values.toml", ValueLists).lists


def _integer(rng: random.Random) -> int:
    size = rng.choices((10, 30, 100, 1000, 9999), (35, 20, 25, 12, 8))[0]
    value = rng.randint(0, size)
    return -value if rng.random() < 0.15 else value


def _number(rng: random.Random) -> int | float:
    if rng.random() < 0.5:
        return rng.randint(1, 500)
    return rng.randint(10, 5000) / rng.choice((10, 10, 100, 2))


def _price(rng: random.Random) -> float:
    return rng.randint(100, 90000) / 100


def _task(rng: random.Random) -> str:
    verb, thing = rng.choice(_LISTS["verb"]), rng.choice(_LISTS["object"])
    return f"{verb} {names.word(rng) if rng.random() < 0.2 else thing}"


def _saying(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.6:
        return rng.choice(_LISTS["saying"])
    return names.phrase(rng) if draw < 0.75 else names.value_string(rng)


def _topic(rng: random.Random) -> str:
    draw = rng.choice((names.phrase, names.word, names.noun, names.person, names.value_string))
    return draw(rng)


def _ticker(rng: random.Random) -> str:
    return "".join(rng.choice("ABCDEFGHIKLMNOPRSTUVWXYZ") for _ in range(rng.randint(3, 4)))


def _expression(rng: random.Random) -> str:
    parts = [str(rng.randint(1, 200))]
    for _ in range(rng.randint(1, 2)):
        parts += [rng.choice("+-*/"), str(rng.randint(1, 99))]
    return " ".join(parts)


def _handle(rng: random.Random) -> str:
    return rng.choice((names.word(rng), f"{names.word(rng)}{rng.randint(1, 99)}", names.person(rng)))


def _items(rng: random.Random) -> list[str]:
    count = rng.choice((2, 2, 3))
    draw = rng.choice((names.noun, names.word, names.noun, names.person))
    drawn: list[str] = []
    while len(drawn) < count:
        item = draw(rng)
        if item not in drawn:
            drawn.append(item)
    return drawn


POOLS: dict[str, Callable[[random.Random], Any]] = {
    "any": names.value_string,
    "code": names.code,
    "date": names.date,
    "email": names.email,
    "file": names.filename,
    "person": names.person,
    "place": names.place,
    "word": names.word,
    "expression": _expression,
    "handle": _handle,
    "items": _items,
    "integer": _integer,
    "number": _number,
    "price": _price,
    "saying": _saying,
    "task": _task,
    "ticker": _ticker,
    "topic": _topic,
    "boolean": lambda rng: rng.random() < 0.5,
    "clock": lambda rng: f"{rng.randint(0, 23):02}:{rng.choice((0, 0, 15, 30, 45, rng.randint(0, 59))):02}",
    "count": lambda rng: rng.randint(2, 9),
    "degrees": lambda rng: rng.randint(-15, 39),
    "identity": lambda rng: rng.randint(1, 99999),
    "large": lambda rng: rng.randint(10, 9_999_999),
    "minutes": lambda rng: rng.choice((5, 10, 15, 20, 25, 30, 45, 60, 90, rng.randint(2, 120))),
    "percent": lambda rng: rng.randint(1, 100),
    "positive": lambda rng: rng.randint(1, rng.choice((9, 99, 999))),
    "room_degrees": lambda rng: rng.randint(15, 26),
    "year": lambda rng: rng.randint(1900, 2030),
}


def draw_value(rng: random.Random, pool: str) -> Any:
    """Draw a value from the pool named `pool`."""
    if pool in POOLS:
        return POOLS[pool](rng)
    return rng.choice(_LISTS[pool])

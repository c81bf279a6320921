"""Values that nobody expects: texts in odd pieces, numbers without end, objects that cannot be shown."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from random import Random
from typing import Any

import numpy as np

PIECES = (
    *("a", "Anna", " 47 + 385 = 432.", "\n", "\n\n", " ", "\t", "\r\n", "1.", "- ", "# Title", "```python\nx = 1\n```"),
    *(
        "\\boxed{18}",
        "\\[",
        "\\]",
        "$18",
        "1,234",
        "3/4",
        "| a | b |",
        "|---|",
        "e.g.",
        "Dr. Smith",
        "...",
        "\u2026",
        "?!",
    ),
    *("\u4f60\u597d\u3002", "\u0645\u0631\u062d\u0628\u0627", "e\u0301", "\U0001f600", "\u200d", "\u200b", "\ufeff"),
    *("\u2028", "\x85", "\x00", "\x1b[31m", "\ue000", "\uf8ff", "\U00100000"),
    *("<think>", "</think>", "<|im_start|>", "<|im_end|>", "<|im_", "<tool_call>", "</tool_call>", "[TOOL_CALLS]"),
    *("<|python_tag|>", "[THINK]", "<|channel|>", "</s>", "\\", '"', "{", "}", "[", "]", ":", ",", "null", "NaN"),
    *('{"name": "weather", "arguments": {"city": "Oslo"}}', '{"name": "weather"', '"arguments": {', "1e999", "-0"),
)
HALVES = ("\ud83d", "\udc80", "\udfff")


def text(rng: Random, *, halves: float = 0.05) -> str:
    """Return some pieces in a row, now and then many, and with half a surrogate pair in a share `halves` of them."""
    pieces = rng.choices(PIECES, k=rng.choice((0, 1, 1, 2, 3, 5, 8, 20)))
    if rng.random() < halves:
        pieces.insert(rng.randrange(len(pieces) + 1), rng.choice(HALVES))
    if rng.random() < 0.03:
        pieces.append(rng.choice(PIECES) * 400)
    return "".join(pieces)


class Unshown:
    """Has no `repr`."""

    def __repr__(self) -> str:
        msg = "never"
        raise RuntimeError(msg)


def number(rng: Random) -> Any:
    """Return a number at some edge."""
    edges = (0, 1, -1, 3, 0.5, 2**31, 2**62, 2**63, 2**64, -(2**63), 10**400, 10**5000, 1e308, 5e-324, -0.0, 1e-9)
    return rng.choice((*edges, math.nan, math.inf, -math.inf, True, False, Decimal(1), np.float64(0.5), np.int64(3)))


def odd(rng: Random, depth: int = 0) -> Any:
    """Return any value."""
    simple = (
        lambda: None,
        lambda: number(rng),
        lambda: number(rng),
        lambda: text(rng),
        lambda: text(rng),
        lambda: rng.choice((b"x", bytearray(b"\xff"), object(), Unshown(), int, len, ..., {1}, range(3), np.zeros(2))),
        lambda: rng.choice((datetime.date(2026, 1, 1), lambda: 1, Unshown, iter(()), Exception("x"))),
    )
    nested = (
        lambda: [odd(rng, depth + 1) for _ in range(rng.randrange(4))],
        lambda: tuple(odd(rng, depth + 1) for _ in range(rng.randrange(3))),
        lambda: {text(rng): odd(rng, depth + 1) for _ in range(rng.randrange(4))},
        lambda: deep(rng),
        lambda: endless(rng),
    )
    return rng.choice(simple if depth > 3 else simple + nested)()


def plain(rng: Random, depth: int = 0) -> Any:
    """Return any value of JSON, infinite numbers and half characters among them."""
    simple = (None, True, False, text(rng), number_of_json(rng), number_of_json(rng), "x")
    if depth > 3 or rng.random() < 0.5:
        return rng.choice(simple)
    if rng.random() < 0.03:
        return deep(rng)
    size = rng.randrange(4)
    if rng.random() < 0.5:
        return [plain(rng, depth + 1) for _ in range(size)]
    return {text(rng): plain(rng, depth + 1) for _ in range(size)}


def number_of_json(rng: Random) -> Any:
    """Return a number that Python's JSON can write."""
    return rng.choice((0, 1, -1, 7, 0.25, 2**53, 2**62, 2**63, -(2**63), 10**400, 1e308, math.nan, math.inf, -math.inf))


def deep(rng: Random) -> Any:
    """Return lists or dicts within each other."""
    value: Any = 1
    for _ in range(rng.choice((40, 300, 1500, 5000))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def endless(rng: Random) -> Any:
    """Return a list or a dict that contains itself."""
    if rng.random() < 0.5:
        items: list[Any] = [1]
        items.append(items)
        return items
    fields: dict[str, Any] = {"type": "object"}
    fields["properties"] = {"a": fields}
    return fields


def changed(rng: Random, value: Any) -> Any:
    """Return a value of JSON with something in it that is other than it was."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        others = {name: item for name, item in value.items() if name != key}
        return others if rng.random() < 0.1 else {**others, key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        items = list(value)
        items[place : place + 1] = [] if rng.random() < 0.1 else [changed(rng, items[place])]
        return items
    return plain(rng)

"""Checks of single options; each raises an error that says what was given and what is allowed."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

from langnorm.errors import OptionError, closest

_LONGEST_SHOWN = 500  # characters of a value in an error
_MOST_LEVELS = 100
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    is_low_open: bool = False,
    is_high_open: bool = False,
    allowed: str = "",
    owner: str = "",
) -> None:
    """Raise `OptionError` unless a value is a finite number in a range.

    Args:
        name: Of the option.
        value: What was given.
        low: Least number.
        high: Largest number.
        is_low_open: Whether `low` itself is not allowed.
        is_high_open: Whether `high` itself is not allowed.
        allowed: What is allowed, in words; by default the range.
        owner: What the option belongs to, such as `recursion`.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    is_open_end = (is_low_open and value == low) or (is_high_open and value == high)
    if not is_number or not low <= value <= high or is_open_end:
        lowest = "any number" if low == -math.inf else f"a number {'above' if is_low_open else 'from'} {low}"
        highest = "" if high == math.inf else f", {'below' if is_high_open else 'to'} {high}"
        refuse(name, value, allowed or lowest + highest, owner)


def check_integer(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, allowed: str = "", owner: str = ""
) -> None:
    """Raise `OptionError` unless a value is an integer in a range; arguments as for `check_number`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        refuse(name, value, allowed or f"an integer from {low}" + ("" if high == math.inf else f" to {high}"), owner)


def check_flag(name: str, value: Any, *, owner: str = "") -> None:
    """Raise `OptionError` unless a value is True or False."""
    if not isinstance(value, bool):
        refuse(name, value, "True or False", owner)


def check_choice(name: str, value: Any, words: Iterable[str], *, owner: str = "") -> None:
    """Raise `OptionError`, with the closest word, unless a value is one of some words."""
    words = tuple(words)
    if not isinstance(value, str) or value not in words:
        quoted = [f'"{word}"' for word in words]
        allowed = " or ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))
        refuse(name, value, allowed, owner, closest(brief(value), words))


def is_async(function: object) -> bool:
    """Return whether a function, or an object that is called, returns what has to be awaited."""
    return callable(function) and any(map(inspect.iscoroutinefunction, (function, function.__call__)))


def refuse(name: str, value: object, allowed: str, owner: str = "", hint: str = "") -> NoReturn:
    """Raise `OptionError` that says what was given and what is allowed."""
    of = f" of `{owner}`" if owner else ""
    msg = f"`{name}={brief(value)}`{of} is not allowed. Use {allowed}.{hint}"
    raise OptionError(msg)


def brief(value: object) -> str:
    """Return a value as an error shows it: its `repr`, cut where it is long, or its type where it has none."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (a user's object raises what it likes, and so do numbers and lists without end)
        return f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def lone_surrogate(value: object) -> str | None:
    """Return the first half of a surrogate pair in the texts of a value, keys included, or None.

    It is no character, and no tokenizer takes it. Scraped and cut texts have some.

    Args:
        value: A text, or lists, tuples and mappings of texts and other values; these may contain themselves.
    """
    waiting, seen = [value], set[int]()
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if found := _SURROGATE.search(item):
                return found.group()
        elif isinstance(item, Mapping | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting += [*item, *item.values()] if isinstance(item, Mapping) else item
    return None


def is_nested_deeply(value: object) -> bool:
    """Return whether lists, tuples and mappings in a value are within each other on more than a hundred levels.

    What contains itself is. Whatever walks through such a value, as templates and writers of JSON do, calls itself for
    each level.
    """
    level = [value]
    for _ in range(_MOST_LEVELS):
        containers = {id(item): item for item in level if isinstance(item, Mapping | list | tuple)}
        if not containers:
            return False
        level = [
            inner for item in containers.values() for inner in (item.values() if isinstance(item, Mapping) else item)
        ]
    return True


def check_text(name: str, value: object, *, owner: str = "") -> None:
    """Raise `OptionError` if the texts of a value have half of a surrogate pair, which no tokenizer takes."""
    if half := lone_surrogate(value):
        refuse(name, value, f"texts without `{half!r}`, half of a surrogate pair, which is not a character", owner)


Kind = TypeVar("Kind")


def build_options(kind: type[Kind], name: str, value: Any) -> Kind | None:
    """Return the options that a user means by `value`: options, a dict of their fields, or None.

    Raises:
        OptionError: It is something else, or a field is unknown or has a value that is not allowed.
    """
    if value is None or isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        msg = f"`{name}={brief(value)}` is not allowed. Use {kind.__name__}(...), a dict of its fields, or None."
        raise OptionError(msg)
    allowed = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for option in value:
        if option not in allowed:
            hint = closest(str(option), allowed) or f" Use {', '.join(f'`{name}`' for name in allowed)}."
            msg = f"`{name}` has no option `{option}`.{hint}"
            raise OptionError(msg)
    return kind(**value)

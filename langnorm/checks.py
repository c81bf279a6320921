"""Checks of single options; each raises an error that says what was given and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

from langnorm.errors import OptionError, closest


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
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
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
        refuse(name, value, allowed, owner, closest(str(value), words))


def refuse(name: str, value: object, allowed: str, owner: str = "", hint: str = "") -> NoReturn:
    """Raise `OptionError` that says what was given and what is allowed."""
    of = f" of `{owner}`" if owner else ""
    msg = f"`{name}={value!r}`{of} is not allowed. Use {allowed}.{hint}"
    raise OptionError(msg)


Kind = TypeVar("Kind")


def build_options(kind: type[Kind], name: str, value: Any) -> Kind | None:
    """Return the options that a user means by `value`: options, a dict of their fields, or None.

    Raises:
        OptionError: It is something else, or a field is unknown or has a value that is not allowed.
    """
    if value is None or isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        msg = f"`{name}={value!r}` is not allowed. Use {kind.__name__}(...), a dict of its fields, or None."
        raise OptionError(msg)
    allowed = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for option in value:
        if option not in allowed:
            hint = closest(str(option), allowed) or f" Use {', '.join(f'`{name}`' for name in allowed)}."
            msg = f"`{name}` has no option `{option}`.{hint}"
            raise OptionError(msg)
    return kind(**value)

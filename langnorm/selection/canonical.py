"""Values as JSON, so that equal ones are equal texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+>")


def json_answer(text: str) -> str | None:
    """Return a text that is a JSON object or array in a form that is the same for equal ones, or None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value = json.loads(text)
        return canonical(value) if isinstance(value, dict | list) else None
    except (ValueError, RecursionError):  # the latter of brackets that are opened and opened
        return None


def canonical(value: Any) -> str:
    """Return a text that is the same for equal values: JSON with sorted keys; texts stay as they are.

    Raises:
        ValueError: It has, or is, something that is no value.
    """
    text = value if isinstance(value, str) else json.dumps(_json_value(value), sort_keys=True, ensure_ascii=False)
    # JSON has a way to name half a surrogate pair, which no file can have as it is.
    return text.encode(errors="backslashreplace").decode()


def _json_value(value: Any) -> Any:
    """Return a value in JSON types: 2.0 as 2, the elements of sets in order, and what JSON has no word for as text.

    Raises:
        ValueError: It is an object of which that text says no more than where it is.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else str(value.normalize())
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | Iterator):
        return [_json_value(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(canonical, value))
    dump = getattr(value, "model_dump", None) or getattr(value, "dict", None)
    if callable(dump):
        return _json_value(dump())
    text = repr(value)
    if _ADDRESS.search(text):
        msg = f"`{text}` is known by its place in memory alone, which says nothing of its value"
        raise ValueError(msg)
    return text

"""Values as JSON, so that equal ones are equal texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


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
    """Return a text that is the same for equal values: JSON with sorted keys; texts stay as they are."""
    return value if isinstance(value, str) else json.dumps(_json_value(value), sort_keys=True, ensure_ascii=False)


def _json_value(value: Any) -> Any:
    """Return a value in JSON types: 2.0 as 2, the elements of sets in order, and what JSON has no word for as text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(canonical, value))
    dump = getattr(value, "model_dump", None) or getattr(value, "dict", None)
    return _json_value(dump()) if callable(dump) else repr(value)

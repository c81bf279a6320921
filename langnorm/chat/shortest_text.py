"""The shortest text of a JSON schema: what does not fit with it fits in no way."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from langnorm.chat.schemas import references

MOST_CHARACTERS = 100_000
"""What is longer is not written out to its end."""

_LONGEST_TOKEN = 128  # characters: what is free text may be one of those, and not a token for each letter
_ALL_TYPES = ("integer", "string", "array", "object", "boolean", "null")


def shortest_text(schema: Mapping[str, Any]) -> str | None:
    """Return the shortest JSON text of a schema, or None where every text would be without end.

    What cannot be read off a schema, such as what a pattern asks for, counts nothing, and free text as few letters as
    it may have tokens: then it is shorter than the shortest.

    Args:
        schema: A plain copy that was checked.
    """
    targets = references(schema)
    known: dict[str, str | None] = dict.fromkeys(targets)
    has_changed = True
    while has_changed:  # a part that refers to itself is first known where it need not
        has_changed = False
        for name in reversed(targets):
            text = _shortest(targets[name], known)
            if text is not None and (known[name] is None or len(text) < len(known[name] or "")):
                known[name], has_changed = text, True
    return _shortest(schema, known)


def _shortest(schema: Any, known: Mapping[str, str | None]) -> str | None:
    if schema is False:
        return None
    if not isinstance(schema, Mapping):
        return "0"
    # All of these hold together, so the text is as long as the longest of them at least.
    texts = [known.get(name, "0")] if isinstance(name := schema.get("$ref"), str) else []
    texts += [_shortest(item, known) for item in schema.get("allOf", ())]
    texts += [_least([_shortest(item, known) for item in schema[key]]) for key in ("anyOf", "oneOf") if key in schema]
    texts.append(_shortest_by_keywords(schema, known))
    return None if None in texts else max((text for text in texts if text is not None), key=len)


def _least(texts: list[str | None]) -> str | None:
    return min((text for text in texts if text is not None), key=len, default=None)


def _shortest_by_keywords(schema: Mapping[str, Any], known: Mapping[str, str | None]) -> str | None:
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return _least([json.dumps(value, ensure_ascii=False) for value in values])
    types = schema.get("type", _ALL_TYPES)
    return _least([_shortest_of_type(kind, schema, known) for kind in ([types] if isinstance(types, str) else types)])


def _shortest_of_type(kind: str, schema: Mapping[str, Any], known: Mapping[str, str | None]) -> str | None:
    match kind:
        case "null":
            return "null"
        case "boolean":
            return "true"
        case "integer":
            return _shortest_integer(schema)
        case "string":
            return f'"{"a" * min(int(schema.get("minLength", 0)) // _LONGEST_TOKEN, MOST_CHARACTERS)}"'
        case "array":
            return _shortest_array(schema, known)
        case "object":
            return _shortest_object(schema, known)
        case _:
            return "0"


def _shortest_integer(schema: Mapping[str, Any]) -> str:
    low = max(schema.get("minimum", -math.inf), _number(schema.get("exclusiveMinimum"), -math.inf))
    high = min(schema.get("maximum", math.inf), _number(schema.get("exclusiveMaximum"), math.inf))
    if low > 0:
        return str(math.ceil(low)) if low < math.inf else "0"
    return str(math.floor(high)) if -math.inf < high < 0 else "0"


def _number(value: Any, otherwise: float) -> float:
    return otherwise if value is None or isinstance(value, bool) else value  # once a flag beside `minimum`


def _shortest_array(schema: Mapping[str, Any], known: Mapping[str, str | None]) -> str | None:
    num_items = int(schema.get("minItems", 0))
    first = schema.get("prefixItems", schema.get("items"))
    texts = [_shortest(item, known) for item in (first if isinstance(first, list) else ())[:num_items]]
    if num_missing := num_items - len(texts):
        rest = schema.get("items" if "prefixItems" in schema or not isinstance(first, list) else "additionalItems", {})
        text = _shortest(rest, known)
        most = MOST_CHARACTERS // (len(text or "") + 2) + 1
        texts += [text] * min(num_missing, most)
    return None if None in texts else f"[{', '.join(text or '' for text in texts)}]"


def _shortest_object(schema: Mapping[str, Any], known: Mapping[str, str | None]) -> str | None:
    properties, fields = schema.get("properties", {}), []
    for name in schema.get("required", ()):
        text = _shortest(properties.get(name, {}), known)
        if text is None:
            return None
        fields.append(f"{json.dumps(name, ensure_ascii=False)}: {text}")
    return f"{{{', '.join(fields)}}}"

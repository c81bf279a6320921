"""The shortest text of a schema."""

from __future__ import annotations

from typing import Any

import pytest

from langnorm.chat.shortest_text import MOST_CHARACTERS, shortest_text

TREE = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({}, "0"),
        ({"type": "string"}, '""'),
        ({"type": "string", "minLength": 300}, '"aa"'),
        ({"type": "boolean"}, "true"),
        ({"type": ["null", "boolean"]}, "null"),
        ({"type": "number", "minimum": 100}, "0"),
        ({"type": "integer", "minimum": 100}, "100"),
        ({"type": "integer", "exclusiveMinimum": 9.5}, "10"),
        ({"type": "integer", "maximum": -12.5}, "-13"),
        ({"type": "integer", "minimum": -5, "maximum": 5}, "0"),
        ({"type": "integer", "minimum": 7, "exclusiveMinimum": True}, "7"),
        ({"enum": ["a", "long one", None]}, '"a"'),
        ({"const": {"a": [1, "x"]}}, '{"a": [1, "x"]}'),
        ({"type": "array"}, "[]"),
        ({"type": "array", "minItems": 3, "items": {"const": "abc"}}, '["abc", "abc", "abc"]'),
        ({"type": "array", "minItems": 2, "prefixItems": [{"const": "ab"}]}, '["ab", 0]'),
        ({"type": "array", "minItems": 1, "prefixItems": [{"const": "ab"}, {"const": "c"}]}, '["ab"]'),
        ({"type": "array", "minItems": 2, "items": [{"const": "ab"}], "additionalItems": {"const": 77}}, '["ab", 77]'),
        (
            {"type": "object", "properties": {"a": {"type": "null"}, "b": {}}, "required": ["a", "c"]},
            '{"a": null, "c": 0}',
        ),
        ({"anyOf": [{"const": "long"}, {"const": 1}]}, "1"),
        ({"allOf": [{"type": "string"}, {"const": "long"}]}, '"long"'),
        ({"oneOf": [{"type": "null"}, False]}, "null"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"const": "x" * 20}}}, f'"{"x" * 20}"'),
        ({"$ref": "#/$defs/tree", "$defs": {"tree": TREE | {"required": ["kids"]}}}, '{"kids": []}'),
    ],
    ids=str,
)
def test_the_shortest_text(schema: dict[str, Any], text: str) -> None:
    """By types, values, and what has to be there."""
    assert shortest_text(schema) == text


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {"type": "array", "prefixItems": [False], "minItems": 1},
        {"allOf": [{"type": "integer"}, False]},
    ],
    ids=str,
)
def test_a_schema_without_a_finite_value_has_none(schema: dict[str, Any]) -> None:
    """What refers to itself and may not be left out has no end."""
    assert shortest_text(schema) is None


def test_a_chain_of_references_is_followed_to_its_end() -> None:
    """Also a long one, and in the order that is worst."""
    parts: dict[str, Any] = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}, "minItems": 1, "type": "array"}
                             for i in range(200)}  # fmt: skip
    parts["d200"] = {"const": "end"}
    assert shortest_text({"$ref": "#/$defs/d0", "$defs": parts}) == "[" * 200 + '"end"' + "]" * 200


def test_a_very_long_text_is_not_written_out() -> None:
    """It is long enough for not to fit, and no longer."""
    items = {"type": "array", "items": {"type": "string", "minLength": 10**12}, "minItems": 10**9}
    text = shortest_text({"type": "array", "items": items, "minItems": 10**9})
    assert text is not None
    assert MOST_CHARACTERS < len(text) < 5 * MOST_CHARACTERS

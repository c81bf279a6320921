"""Schemas are plain data that is well formed, or are refused with what is wrong and where."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import pytest

from langnorm.chat.schemas import build_check, check_schema, closed_schema, is_recursive, moved_schema, plain_copy
from langnorm.errors import MissingDependencyError, OptionError


class Color(StrEnum):
    """A text with a name."""

    RED = "red"


class Size(IntEnum):
    """A number with a name."""

    BIG = 3


def nested(levels: int) -> dict[str, Any]:
    """Returns a schema that is this deep."""
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def circle() -> dict[str, Any]:
    """Returns a schema that contains itself, twice."""
    schema: dict[str, Any] = {"type": "object"}
    schema["properties"] = {"a": schema, "b": schema}
    return schema


def test_what_is_like_json_becomes_json() -> None:
    """Tuples, enumerations and their like."""
    schema = {"enum": (Color.RED, Size.BIG, 1.5, None, True)}
    copied = plain_copy(schema)
    assert copied == {"enum": ["red", 3, 1.5, None, True]}
    assert [type(value) for value in copied["enum"]] == [str, int, float, type(None), bool]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"const": "a\udc80"}, r"the text `'a\\udc80'` in `const` has half of a surrogate pair at 1"),
        ({"properties": {"x": {"enum": ["\ud800"]}}}, "in `properties.x.enum.0` has half"),
        ({"properties": {"\udfff": {}}}, "in `properties` has half"),
        ({"description": "\ud800"}, "in `description` has half"),
        ({"properties": {1: {}}}, "the name `1` in `properties` is no text"),
        ({"const": b"x"}, "`const` is `b'x'`"),
        ({"const": float("nan")}, "`const` is `nan`"),
        ({"minimum": -float("inf")}, "`minimum` is `-inf`"),
        ({"const": 10**5000}, "`const` is"),
        (nested(1500), "nested more than 100 levels deep"),
        (circle(), "contains itself"),
        ({"enum": list(range(30_000))}, "more than 20,000 values"),
        (3 + 4j, r"it is `\(3\+4j\)`"),
    ],
)
def test_what_json_has_not_is_refused(schema: Any, message: str) -> None:
    """The error names the place, in few words however large the schema is."""
    with pytest.raises(OptionError, match=message) as error:
        plain_copy(schema)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "string", "minLength": "x"}, "minLength"),
        ({"minLength": "x"}, "minLength"),
        ({"properties": []}, "properties"),
        ({"enum": 5}, "enum"),
        ({"type": "array", "items": [{"type": "integer"}]}, "items"),
        ({"type": "object", "properties": {"a": {"type": "strnig"}}}, r"properties.a.type"),
        ({"$schema": 3}, "schema"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "minLength": "x"}, "minLength"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
        ({"$ref": "https://example.com/schema.json"}, r"must begin with `#/`"),
        ({"$ref": "#name", "$defs": {"a": {"$anchor": "name"}}}, r"must begin with `#/`"),
        ({"$ref": "#"}, "form a circle"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "form a circle"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "form a circle"),
        ({"properties": {"x": {"$ref": "#/properties/x"}}}, "form a circle"),
        (nested(99) | {"minItems": "x"}, "minItems"),
    ],
)
def test_a_malformed_schema_is_refused(schema: Any, message: str) -> None:
    """The error names the place; circles of references are found, which no reader would come out of."""
    with pytest.raises(OptionError, match=f"This schema cannot be held to: .*{message}"):
        check_schema(plain_copy(schema))


@pytest.mark.parametrize(
    "schema",
    [
        nested(99),
        {"$ref": "#/$defs/t", "$defs": {"t": {"properties": {"kids": {"items": {"$ref": "#/$defs/t"}}}}}},
        {"$ref": "#/$defs/a~1b%25", "$defs": {"a/b%": {"type": "integer"}}},
        {"$ref": "#/anyOf/0/properties/x", "anyOf": [{"properties": {"x": {"type": "integer"}}}]},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "integer"}]},
        {"$schema": "urn:unknown", "type": "integer"},
        {"enum": [{"$ref": "#/nowhere"}], "properties": {"$ref": {"type": "string"}}},
    ],
    ids=str,
)
def test_a_well_formed_schema_is_left_alone(schema: Any) -> None:
    """Deep ones, ones that refer to themselves by a value in between, and `$ref` where it is no reference."""
    check_schema(plain_copy(schema))


def test_what_refers_to_itself() -> None:
    """On whatever way."""
    tree = {"$ref": "#/$defs/t", "$defs": {"t": {"properties": {"kids": {"items": {"$ref": "#/$defs/t"}}}}}}
    assert is_recursive(tree)
    assert is_recursive({"properties": {"a": {"$ref": "#"}}})
    assert not is_recursive({"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "integer"}}})


def test_a_schema_that_is_moved_takes_its_references_along() -> None:
    """Those in names and values of the user's own are no references."""
    schema = {
        "items": {"$ref": "#/$defs/a"},
        "anyOf": [{"$ref": "#"}],
        "properties": {"$ref": {"type": "integer"}},
        "enum": [{"$ref": "#/x"}],
        "$defs": {"a": {}},
    }
    assert moved_schema(schema, "/properties/value") == {
        "items": {"$ref": "#/properties/value/$defs/a"},
        "anyOf": [{"$ref": "#/properties/value"}],
        "properties": {"$ref": {"type": "integer"}},
        "enum": [{"$ref": "#/x"}],
        "$defs": {"a": {}},
    }


def test_values_are_compared_with_a_schema() -> None:
    """What is wrong is said with its place, or nothing is."""
    check = build_check({"type": "object", "properties": {"a": {"type": "string", "pattern": "^[A-Z]+$"}}})
    assert check({"a": "ABC"}) == ""
    assert "`$.a`: `abc` has not the pattern" in check({"a": "abc"})
    assert "`$.a`: 3 is not of type 'string'" in check({"a": 3})


def test_a_pattern_in_another_dialect_is_left_to_the_grammar() -> None:
    """Python has no Unicode classes; the grammar's own regular expressions have."""
    assert build_check({"type": "string", "pattern": "^\\p{Lu}+$"})("abc") == ""


def test_a_value_that_is_too_deep_is_no_crash() -> None:
    """Of a schema that refers to itself."""
    value: list[Any] = []
    for _ in range(900):
        value = [value]
    assert "nested too deeply" in build_check({"type": "array", "items": {"$ref": "#"}})(value)


def test_without_the_extra_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be installed is said."""
    monkeypatch.setitem(__import__("sys").modules, "jsonschema.validators", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "langnorm\[structured\]"'):
        build_check({"type": "string"})


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        ({"type": "object", "properties": {"a": {}}}, False),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, True),
        ({"type": "object"}, None),
        ({"type": "object", "properties": {"properties": {"type": "string"}}}, False),
    ],
)
def test_objects_have_the_properties_that_are_named(schema: dict[str, Any], closed: bool | None) -> None:
    """As function calling understands a schema; one that allows more still does, and one without any is free."""
    assert closed_schema(schema).get("additionalProperties") is closed


def test_parts_that_are_joined_stay_open() -> None:
    """Each part of an `allOf` would otherwise forbid what the others name."""
    schema = {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}
    assert closed_schema(schema) == schema

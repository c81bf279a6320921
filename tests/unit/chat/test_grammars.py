"""A schema that no grammar can be made of is refused before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from langnorm.chat.grammars import build_grammar, least_length
from langnorm.chat.tools import ToolUse, convert_tools
from langnorm.engines.requests import Grammar
from langnorm.errors import OptionError
from langnorm.text.tool_calls import HERMES


def grammar_of(tokenizer: Any, schema: Any, *, is_tool: bool) -> Grammar | None:
    """Returns the grammar of an answer, or of the arguments of a tool that must be called."""
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    use = ToolUse(tuple(convert_tools([tool])), must_call=True) if is_tool else ToolUse()
    return build_grammar(
        tokenizer, use=use, schema=None if is_tool else schema, form=HERMES, is_thinking=False, may_think=True
    )


@pytest.mark.parametrize("is_tool", [False, True], ids=["answer", "tool"])
@pytest.mark.parametrize(
    "schema",
    [
        *({"enum": 3}, {"properties": 3}, {"anyOf": 3}, {"allOf": 3}, {"$ref": 3}, {"$ref": "#/nowhere"}),
        *({"required": 3, "properties": {}}, {"properties": {"a": 3}}, {"type": "xml"}),
        *({"type": "string", "minLength": value} for value in ("x", 1.5, float("inf"), float("nan"))),
        *({"const": value} for value in (float("nan"), b"x", {1}, np.array([1]), np.int64(1))),
    ],
    ids=repr,
)
def test_a_malformed_schema_is_refused(tokenizer: Any, schema: Any, is_tool: bool) -> None:
    """The error says what is wrong with it, for answers and for arguments of tools."""
    with pytest.raises(OptionError, match=r"This schema cannot be (held to|written as JSON): ."):
        grammar_of(tokenizer, schema, is_tool=is_tool)


@pytest.mark.parametrize(
    "schema", [{"type": "object", "properties": {}, "minItems": "x"}, {"properties": {1: {"type": "string"}}}], ids=repr
)
def test_what_llguidance_overlooks_is_overlooked(tokenizer: Any, schema: Any) -> None:
    """A keyword that has no meaning for a type may have any value, and keys become text as in JSON."""
    grammar = grammar_of(tokenizer, schema, is_tool=False)
    assert grammar is not None
    assert grammar.least_tokens > 0


def test_text_that_nothing_constrains_needs_no_grammar(tokenizer: Any) -> None:
    """Without a schema or a call that must be made, an answer may be any text."""
    use = ToolUse(tuple(convert_tools([{"type": "function", "function": {"name": "f"}}])))
    assert build_grammar(tokenizer, use=use, schema=None, form=HERMES, is_thinking=False, may_think=True) is None


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"enum": ["a", "long one"]}, '"long one"'),
        ({"type": "string", "minLength": 9}, '"123456789"'),
        ({"type": "array", "minItems": 3, "items": {"const": "abc"}}, '["abc", "abc", "abc"]'),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"const": "x" * 20}}}, f'"{"x" * 20}"'),
    ],
)
def test_the_least_length_is_enough_for_the_shortest_text(schema: dict[str, Any], text: str) -> None:
    """It is an upper bound of the bytes that the shortest text with the longest choice takes."""
    assert least_length(schema) >= len(text.encode())

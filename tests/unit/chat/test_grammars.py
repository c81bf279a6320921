"""What an answer is held to; a schema that no grammar can be made of is refused before anything is computed."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from langnorm.chat.grammars import build_grammar
from langnorm.chat.tools import ToolUse, convert_tools
from langnorm.engines.requests import Grammar
from langnorm.errors import MissingDependencyError, OptionError
from langnorm.text.tool_calls import HERMES, MISTRAL_NAMED
from tests.support.grammars import PERSON, convert, grammar_with, now


def grammar_for(tokenizer: Any, schema: Any, *, is_tool: bool) -> Grammar | None:
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
        *({"type": "object", "properties": {}, "minItems": "x"}, {"properties": {1: {"type": "string"}}}),
        *({"const": value} for value in (float("nan"), b"x", {1}, np.array([1]), np.int64(1))),
    ],
    ids=repr,
)
def test_a_malformed_schema_is_refused(tokenizer: Any, schema: Any, is_tool: bool) -> None:
    """The error says what is wrong with it, for answers and for arguments of tools."""
    with pytest.raises(OptionError, match=r"cannot be (held to|written as JSON): .|cannot be a tool \(its"):
        grammar_for(tokenizer, schema, is_tool=is_tool)


def test_text_that_nothing_constrains_needs_no_grammar(tokenizer: Any) -> None:
    """Without a schema or a call that must be made, an answer may be any text."""
    use = ToolUse(tuple(convert_tools([{"type": "function", "function": {"name": "f"}}])))
    assert build_grammar(tokenizer, use=use, schema=None, form=HERMES, is_thinking=False, may_think=True) is None


def test_named_calls_of_mistral(tokenizer: Any) -> None:
    """Marks that are no tokens of this tokenizer are spelt out."""
    use = ToolUse(tuple(convert_tools([convert, now])), must_call=True)
    assert '"[TOOL_CALLS]"' in grammar_with(tokenizer, use=use, form=MISTRAL_NAMED).lark


def test_a_schema_that_cannot_be_held_to_is_refused(tokenizer: Any) -> None:
    """Before any compute, with what the library says about it."""
    with pytest.raises(OptionError, match="cannot be held to.*nonsense"):
        grammar_with(tokenizer, schema={"type": "string", "format": "nonsense"})


def test_no_grammar_where_nothing_is_forced(tokenizer: Any) -> None:
    """Tools that may be called leave the answer free."""
    assert grammar_with(tokenizer, use=ToolUse(tuple(convert_tools([now])))) is None


def test_without_the_extra_there_is_a_hint(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be installed is said, before any compute."""
    monkeypatch.setitem(sys.modules, "llguidance.hf", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "langnorm\[structured\]"'):
        grammar_with(tokenizer, schema=PERSON)

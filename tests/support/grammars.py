"""Grammars, schemas and tools that several tests need."""

from __future__ import annotations

from typing import Any

from langchain_core.tools import tool

from langnorm.chat.grammars import build_grammar
from langnorm.chat.tools import ToolUse
from langnorm.text.tool_calls import HERMES

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "color": {"enum": ["red", "blue"]},
        "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}},
    },
    "required": ["name", "age", "color", "friends"],
    "$defs": {"friend": {"type": "object", "properties": {"nick": {"type": "string"}}, "required": ["nick"]}},
}


@tool
def convert(amount: float, unit: str, precise: bool = False) -> str:
    """Convert an amount."""
    return f"{amount} {unit} {precise}"


@tool
def now() -> str:
    """Tell the time."""
    return "12:00"


def grammar_with(tokenizer: Any, **options: Any) -> Any:
    """Returns a grammar with defaults for what is not given."""
    defaults = {"use": ToolUse(), "schema": None, "form": HERMES, "is_thinking": False, "may_think": False}
    return build_grammar(tokenizer, **(defaults | options))

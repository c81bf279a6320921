"""Conversations: LangChain's messages as OpenAI's, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.tool import invalid_tool_call, tool_call

from langnorm.chat.message_checks import to_turns
from langnorm.checks import brief
from langnorm.errors import PromptError, closest

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def write_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Return messages in OpenAI's form: text, reasoning and calls, all that a chat template gets to see.

    Raises:
        PromptError: A message cannot be put to a model of text.
    """
    return [_write_turn(turn) for turn in to_turns(messages)]


def _write_turn(turn: dict[str, Any]) -> dict[str, Any]:
    if calls := turn.get("tool_calls"):
        turn = turn | {"tool_calls": [_write_call(call) for call in calls]}
    return turn


def _write_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return call | {"function": {"name": function["name"], "arguments": arguments}}


def read_messages(messages: Any) -> list[BaseMessage]:
    """Return OpenAI's messages as LangChain's.

    Raises:
        PromptError: One of them is malformed, or has parts of other content than text.
    """
    if not isinstance(messages, list) or not messages:
        msg = f"`messages={brief(messages)}` is not allowed. Give a list of at least one message."
        raise PromptError(msg)
    read = [_read_message(number, message) for number, message in enumerate(messages)]
    if not all(isinstance(message.content, str) for message in read):
        to_turns(read)  # LangChain looks at parts before a call checks them, and stumbles over some that are malformed
    return read


def _read_message(number: int, message: Any) -> BaseMessage:
    role = message.get("role") if isinstance(message, Mapping) else None
    if not isinstance(role, str) or role not in _ROLES:
        hint = closest(role, _ROLES) if isinstance(role, str) else ""
        msg = f"Message {number} has the role `{brief(role)}`. Use one of: {', '.join(_ROLES)}.{hint}"
        raise PromptError(msg)
    content = _read_content(number, message)
    name = _read_text(number, message, "name")
    match role:
        case "system" | "developer":
            return SystemMessage(content, name=name)
        case "user":
            return HumanMessage(content, name=name)
        case "tool":
            return ToolMessage(content, tool_call_id=_needed_text(number, message, "tool_call_id"), name=name)
        case "function":
            return FunctionMessage(content=content, name=_needed_text(number, message, "name"))
    return _read_answer(number, message, content, name)


def _read_content(number: int, message: Mapping[str, Any]) -> Any:
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        return ""
    is_list = isinstance(content, list) and all(isinstance(part, str | dict) for part in content)
    if not isinstance(content, str) and not is_list:
        msg = f"Message {number} has the content `{brief(content)}`. Give a text, or a list of parts with text."
        raise PromptError(msg)
    return content


def _read_text(number: int, message: Mapping[str, Any], field: str) -> str | None:
    text = message.get(field)
    if not isinstance(text, str | None):
        msg = f"Message {number} has the `{field}` `{brief(text)}`. Give a text, or leave it out."
        raise PromptError(msg)
    return text


def _needed_text(number: int, message: Mapping[str, Any], field: str) -> str:
    text = _read_text(number, message, field)
    if text is None:
        msg = f"Message {number}, of role `{message['role']}`, has no `{field}`. Give it."
        raise PromptError(msg)
    return text


def _read_answer(number: int, message: Mapping[str, Any], content: Any, name: str | None) -> AIMessage:
    extra: dict[str, Any] = {}
    if reasoning := _read_text(number, message, "reasoning_content") or _read_text(number, message, "reasoning"):
        extra["reasoning_content"] = reasoning
    if function_call := message.get("function_call"):  # OpenAI's oldest form
        extra["function_call"] = function_call
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        msg = f"Message {number} has the `tool_calls` `{brief(calls)}`. Give a list, or leave them out."
        raise PromptError(msg)
    valid: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in calls:
        call_id, called, arguments = _read_call(number, call)
        if isinstance(loaded := _loaded(arguments), dict):
            valid.append(tool_call(name=called, args=loaded, id=call_id))
        else:  # the model reads what it got wrong
            invalid.append(invalid_tool_call(name=called, args=str(arguments), id=call_id, error=None))
    return AIMessage(content, name=name, additional_kwargs=extra, tool_calls=valid, invalid_tool_calls=invalid)


def _read_call(number: int, call: Any) -> tuple[str | None, str, Any]:
    match call:
        case {"function": {"name": str(name), "arguments": str() | dict() as arguments}}:
            call_id = call.get("id")
            if isinstance(call_id, str | None):
                return call_id, name, arguments
    msg = (
        f"Message {number} has the tool call `{brief(call)}`. Give calls as the model gave them: "
        '{"id": .., "type": "function", "function": {"name": .., "arguments": ".."}}.'
    )
    raise PromptError(msg)


def _loaded(arguments: Any) -> Any:
    if isinstance(arguments, dict):
        return arguments
    try:
        return json.loads(arguments, strict=False) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return None

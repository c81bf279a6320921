"""LangChain's messages as turns for a chat template, whichever provider wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langnorm.checks import brief
from langnorm.errors import PromptError

# Where blocks of text have it, by their type: LangChain's, and those of OpenAI's Responses.
_TEXT_KEYS = {"text": "text", "text-plain": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_REASONING = ("reasoning", "thinking", "reasoning_content")
# Beside these, blocks whose kind says that they are about a tool or a call; of Google's and Mistral's, some do not.
_WITHOUT_TEXT = (
    *(*_REASONING, "redacted_thinking", "non_standard"),
    *("executable_code", "code_execution_result", "reference"),
)
_CACHE_MARKS = ("cachePoint", "cache_point")


def to_turn(message: BaseMessage) -> dict[str, Any]:
    """Return a message as chat templates take it.

    Raises:
        PromptError: Its content is not text, or its kind is unknown.
    """
    match message:
        case SystemMessage():
            return {"role": "system", "content": message_text(message)}
        case HumanMessage():
            return {"role": "user", "content": message_text(message)}
        case ToolMessage():
            turn = {"role": "tool", "content": message_text(message), "tool_call_id": message.tool_call_id}
            return turn | ({"name": message.name} if message.name else {})
        case FunctionMessage():
            call_id = _function_call_id(message.name)
            return {"role": "tool", "content": message_text(message), "tool_call_id": call_id, "name": message.name}
        case AIMessage():
            return _assistant_turn(message)
        case ChatMessage():
            return {"role": message.role, "content": message_text(message)}
    msg = f"A `{type(message).__name__}` cannot be put to this model. Use system, human, AI and tool messages."
    raise PromptError(msg)


def _assistant_turn(message: AIMessage) -> dict[str, Any]:
    # What the model wrote in place of a call is not lost: it reads what it got wrong.
    misspelt = [call["args"] or "" for call in message.invalid_tool_calls]
    calls = [(call["id"], call["name"], call["args"]) for call in message.tool_calls]
    if not (calls or misspelt):
        for call_id, name, arguments in _calls_elsewhere(message):
            if isinstance(arguments := _loaded(arguments), dict):
                calls.append((call_id, name, arguments))
            else:
                misspelt.append(str(arguments))
    turn: dict[str, Any] = {"role": "assistant", "content": message_text(message) + "".join(misspelt)}
    if reasoning := _find_reasoning(message):
        turn["reasoning_content"] = reasoning
    if calls:
        turn["tool_calls"] = [
            {"type": "function", "id": call_id, "function": {"name": name, "arguments": arguments}}
            for call_id, name, arguments in calls
        ]
    return turn


def _calls_elsewhere(message: AIMessage) -> Iterator[tuple[str | None, str, Any]]:
    """Yield id, name and arguments of calls that a provider left in its content, or in OpenAI's oldest form."""
    blocks: list[Any] = message.content if isinstance(message.content, list) else []
    for block in blocks:
        match block:
            case {"type": "tool_use", "name": str(name), "input": arguments}:
                yield block.get("id"), name, arguments
            case {"type": "tool_call", "name": str(name), "args": arguments}:
                yield block.get("id"), name, arguments
            case {"type": "function_call", "name": str(name), "arguments": arguments}:
                yield block.get("call_id"), name, arguments
    match message.additional_kwargs.get("function_call"):
        case {"name": str(name), "arguments": arguments}:
            yield _function_call_id(name), name, arguments


def _function_call_id(name: str) -> str:
    """Return the id of a call of OpenAI's oldest form, which has none: a result names the function."""
    return f"function_{name}"


def _loaded(arguments: Any) -> Any:
    """Return arguments by name, or the text that they are if it is not JSON."""
    if not isinstance(arguments, str):
        return arguments
    try:
        loaded = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        return arguments
    return loaded if isinstance(loaded, dict) else arguments


def _find_reasoning(message: AIMessage) -> str:
    """Return the reasoning, wherever the model or the output version has put it."""
    if reasoning := message.additional_kwargs.get("reasoning_content"):
        return reasoning if isinstance(reasoning, str) else brief(reasoning)
    blocks = [block for block in message.content if isinstance(block, dict)]
    return "".join(
        _reasoning_text(block.get(kind)) for kind in _REASONING for block in blocks if block.get("type") == kind
    )


def _reasoning_text(value: Any) -> str:
    """Return the text of some reasoning: a text, or Bedrock's block of one, or Mistral's list of such blocks."""
    match value:
        case str():
            return value
        case {"text": str(text)}:
            return text
        case list():
            return "".join(_reasoning_text(item) for item in value if not isinstance(item, list))
    return ""


def message_text(message: BaseMessage) -> str:
    """Return the text of a message, its text blocks joined.

    Marks of caches have no text, nor have blocks of an assistant's message that the template writes from other fields
    of it, or that say what its provider's own tools did.

    Raises:
        PromptError: A block is something else, such as an image, or its text is not a string.
    """
    if isinstance(message.content, str):
        return message.content
    return "".join(block if isinstance(block, str) else _block_text(message, block) for block in message.content)


def _block_text(message: BaseMessage, block: Mapping[str, Any]) -> str:
    # Amazon's blocks name their kind by their only key.
    kind = block.get("type", "text" if set(block) == {"text"} else None)
    if isinstance(kind, str) and kind in _TEXT_KEYS:
        text = block.get(_TEXT_KEYS[kind])
        if not isinstance(text, str):
            msg = f"A `{type(message).__name__}` has the text block `{brief(block)}`. Give a string as its `text`."
            raise PromptError(msg)
        return text
    if isinstance(message, ToolMessage) and kind == "json":
        return _dump_result(block.get("json"))
    if kind in _CACHE_MARKS or any(mark in block for mark in _CACHE_MARKS):
        return ""
    if isinstance(message, AIMessage) and _is_silent(kind, block):
        return ""
    msg = (
        f"A `{type(message).__name__}` has a block of type `{kind}`. This model reads text "
        "only: describe it in words, or leave it out."
    )
    raise PromptError(msg)


def _is_silent(kind: Any, block: Mapping[str, Any]) -> bool:
    """Return whether a block of an assistant's message is reasoning, a call, or the result of a provider's own tool."""
    if not isinstance(kind, str):
        return "toolUse" in block or "reasoningContent" in block
    return kind in _WITHOUT_TEXT or "tool" in kind or kind.endswith("_call")


def _dump_result(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"A `ToolMessage` has a JSON block that cannot be written as JSON: {error}. Give it as text."
        raise PromptError(msg) from error

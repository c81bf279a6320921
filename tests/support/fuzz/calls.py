"""What a caller gives: messages, options, tools and schemas."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langnorm import ChatLangNorm
from langnorm.chat.settings import CALL_NAMES
from langnorm.errors import OptionError
from langnorm.testing import ScriptedEngine
from tests.support.fuzz.values import number, odd, plain, text

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Get the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
NUMBERS = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed", "n", "timeout"),
    *("low_below", "max_batch_size", "max_retries", "top_logprobs"),
)
BLOCKS = (
    *(
        "text",
        "reasoning",
        "thinking",
        "image",
        "image_url",
        "tool_use",
        "tool_call",
        "json",
        "non_standard",
        "refusal",
    ),
    *("output_text", "file", "invalid_tool_call", "server_tool_call", "text-plain", "function_call", ""),
)


@cache
def engine() -> ScriptedEngine:
    """Return an engine that always says the same."""
    return ScriptedEngine(["<think>\nI add.\n</think>\n\nIt is 4."], is_repeated=True)


def message(rng: Random) -> Any:
    """Return a message of any class, sound or not."""
    content: Any = text(rng)
    if rng.random() < 0.5:
        content = [_block(rng) for _ in range(rng.randrange(4))]
    if rng.random() < 0.05:
        content = odd(rng)
    kind = rng.choice(
        (HumanMessage, HumanMessage, SystemMessage, AIMessage, AIMessage, AIMessageChunk, ToolMessage, ChatMessage)
    )
    fields: dict[str, Any] = {"content": content}
    if kind is ToolMessage:
        fields["tool_call_id"] = text(rng)
    if kind is ChatMessage:
        fields["role"] = rng.choice(("user", "assistant", text(rng)))
    if kind is AIMessage and rng.random() < 0.5:
        calls = [{"name": text(rng), "args": {text(rng): plain(rng)}, "id": text(rng), "type": "tool_call"}]
        fields["tool_calls"] = calls if rng.random() < 0.9 else odd(rng)
    if rng.random() < 0.2:
        fields["additional_kwargs"] = {rng.choice(("reasoning_content", "tool_calls", "function_call")): odd(rng)}
    if rng.random() < 0.1:
        fields["name"] = rng.choice((None, text(rng)))
    try:
        return kind(**fields)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):  # LangChain refuses it
        return kind.model_construct(**{"additional_kwargs": {}, "response_metadata": {}, **fields})


def _block(rng: Random) -> Any:
    kind = rng.choice(BLOCKS)
    choice = rng.random()
    if choice < 0.1:
        return text(rng)
    if choice < 0.13:
        return odd(rng)
    fields = {
        "type": kind,
        rng.choice(("text", kind or "text", "reasoning", "json", "id")): rng.choice((text(rng), plain(rng))),
    }
    return fields if rng.random() < 0.9 else {"text": text(rng)}


def messages(rng: Random) -> None:
    """Put messages to the model."""
    chat = ChatLangNorm(engine=engine(), special_tokens=rng.choice(("literal", "literal", "raise", "allow")))
    conversation: list[BaseMessage] = [message(rng) for _ in range(rng.randrange(1, 5))]
    tools = {"tools": [WEATHER]} if rng.random() < 0.3 else {}
    if rng.random() < 0.3:
        list(chat.stream(conversation, **tools))
    else:
        chat.invoke(conversation, **tools)


def options(rng: Random) -> None:
    """Set options, in each place where that can be done."""
    others = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "profile", "streaming", "model_kwargs")
    names = rng.sample((*CALL_NAMES, *others, text(rng)), k=rng.choice((1, 1, 1, 2, 3)))
    values = {name: number(rng) if name in NUMBERS and rng.random() < 0.7 else odd(rng) for name in names}
    if isinstance(values.get("n"), int) and values["n"] > 1000:
        values["n"] = 2  # so many answers take their time
    if callable(values.get("step_splitter")):
        del values["step_splitter"]  # what a user's function raises is the user's
    must_refuse = any(isinstance(values.get(name), bool) for name in NUMBERS)
    try:
        _with_options(rng, values)
    except TimeoutError:
        if "timeout" not in values:
            raise
    else:
        if must_refuse:
            msg = f"True or False was taken for a number: {values}"
            raise AssertionError(msg)


def _with_options(rng: Random, values: dict[str, Any]) -> None:
    place = rng.randrange(5)
    chat = ChatLangNorm(engine=engine())
    of_call = {name: value for name, value in values.items() if name not in ("streaming", "model_kwargs")}
    if place == 0:
        ChatLangNorm(**{"engine": engine(), **values}).invoke("Hi")
    elif place == 1:
        chat.invoke("Hi", **of_call)
    elif place == 2:
        list(chat.stream("Hi", **of_call))
    elif place == 3:
        chat.bind(**of_call).invoke("Hi")
    else:
        chat.batch(["Hi", "Ho"], **of_call)
    if set(values) - set(of_call) and place and any(isinstance(values.get(name), bool) for name in NUMBERS):
        msg = "nothing was set"
        raise OptionError(msg)


def schemas(rng: Random) -> None:
    """Offer tools, force calls, and hold answers to schemas."""
    chat = ChatLangNorm(engine=engine(), max_tokens=500)
    given = _schema(rng) if rng.random() < 0.9 else odd(rng)
    kind = rng.randrange(4)
    if kind == 0:
        chat.invoke("Hi", response_format=given)
    elif kind == 1:
        method = rng.choice(("json_schema", "function_calling", "json_mode"))
        chat.with_structured_output(given, method=method, include_raw=True).invoke("Hi")
    else:
        name = rng.choice(("weather", text(rng)))
        tool = {"type": "function", "function": {"name": name, "description": text(rng), "parameters": given}}
        choice = rng.choice(("auto", "any", name, "none", odd(rng)))
        chat.bind_tools([tool, rng.choice((WEATHER, odd(rng)))], tool_choice=choice).invoke("Hi")


def _schema(rng: Random, depth: int = 0) -> Any:
    """Return a JSON schema that need not be one."""
    keywords = {
        "type": lambda: rng.choice(
            ("object", "array", "string", "number", "integer", "boolean", "null", ["string", "null"], "x")
        ),
        "properties": lambda: (
            {text(rng): _schema(rng, depth + 1) for _ in range(rng.randrange(3))} if depth < 3 else {}
        ),
        "required": lambda: [text(rng)],
        "items": lambda: _schema(rng, depth + 1) if depth < 3 else {},
        "enum": lambda: [plain(rng), text(rng)],
        "const": lambda: plain(rng),
        "anyOf": lambda: [_schema(rng, depth + 1)] if depth < 3 else [{}],
        "allOf": lambda: [_schema(rng, depth + 1)] if depth < 3 else [{}],
        "$ref": lambda: rng.choice(("#", "#/$defs/a", text(rng))),
        "$defs": lambda: {"a": _schema(rng, depth + 1)} if depth < 3 else {},
        "minLength": lambda: number(rng),
        "maximum": lambda: number(rng),
        "minItems": lambda: number(rng),
        "pattern": lambda: rng.choice(("[a-z]+", "(", "a{1000000}", text(rng))),
        "format": lambda: rng.choice(("email", "date", "x")),
        "additionalProperties": lambda: rng.choice((True, False, {})),
        "title": lambda: text(rng),
    }
    names = rng.sample(list(keywords), k=rng.choice((0, 1, 2, 3)))
    made = {name: keywords[name]() if rng.random() < 0.85 else odd(rng) for name in names}
    return {"type": "object", "title": "T", "properties": {"a": made}} if depth == 0 and rng.random() < 0.5 else made

"""Answers, whole and in chunks: LangChain's messages as OpenAI's choices, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk

from langnorm.trace import KEY
from langnorm.wire.names import ENGINE, FIELD, INVALID_CALLS, OF_TOKENS, USAGE

_REASONS = {"pruned": "length"}  # OpenAI has no word for it


def write_choice(message: AIMessage, index: int, *, with_findings: bool) -> dict[str, Any]:
    """Return a whole message as one of OpenAI's choices.

    Calls that could not be read are among the others, with their text, which is no JSON, as arguments.
    """
    calls = [
        _write_call(call["id"], call["name"], json.dumps(call["args"], ensure_ascii=False))
        for call in message.tool_calls
    ]
    calls += [_write_call(call["id"], call["name"] or "", call["args"] or "") for call in message.invalid_tool_calls]
    text = str(message.content)
    fields: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
    if reasoning := message.additional_kwargs.get("reasoning_content"):
        fields["reasoning_content"] = reasoning
    if calls:
        fields["tool_calls"] = calls
    if with_findings:
        fields[FIELD] = _findings(message)
    return {"index": index, "message": fields, **_ending(message)}


def write_delta(chunk: AIMessageChunk, index: int, *, with_findings: bool) -> dict[str, Any]:
    """Return a chunk of a streamed message as one of OpenAI's choices of a chunk."""
    delta: dict[str, Any] = {}
    if chunk.content:
        delta["content"] = chunk.content
    if reasoning := chunk.additional_kwargs.get("reasoning_content"):
        delta["reasoning_content"] = reasoning
    if chunk.tool_call_chunks:
        delta["tool_calls"] = [
            {"index": call["index"]} | _write_call(call["id"], call["name"], call["args"] or "")
            if call["id"]
            else {"index": call["index"], "function": {"arguments": call["args"] or ""}}
            for call in chunk.tool_call_chunks
        ]
    if chunk.chunk_position != "last":
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
    if with_findings:
        delta[FIELD] = _findings(chunk)
    return {"index": index, "delta": delta, **_ending(chunk)}


def write_usage(messages: Sequence[AIMessage]) -> dict[str, Any]:
    """Return what the messages of one call used: their prompt once, and the tokens of all of them."""
    usages = [message.usage_metadata for message in messages if message.usage_metadata]
    num_prompt = max((usage["input_tokens"] for usage in usages), default=0)
    num_generated = sum(usage["output_tokens"] for usage in usages)
    reasoning = sum(usage.get("output_token_details", {}).get("reasoning", 0) for usage in usages)
    cached = max((usage.get("input_token_details", {}).get("cache_read", 0) for usage in usages), default=0)
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_generated,
        "total_tokens": num_prompt + num_generated,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def _write_call(call_id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name or "", "arguments": arguments}}


def _ending(message: AIMessage) -> dict[str, Any]:
    metadata = message.response_metadata
    reason = metadata.get("finish_reason", "stop")
    logprobs = metadata.get("logprobs")
    return {
        "logprobs": logprobs and {**logprobs, "refusal": None},
        "finish_reason": _REASONS.get(reason, reason),
    }


def _findings(message: AIMessage) -> dict[str, Any]:
    """Return what a message has that OpenAI's format has no place for, in one object of plain JSON types."""
    metadata = message.response_metadata
    found = {**metadata.get(KEY, {}), **message.additional_kwargs.get(KEY, {})}
    found |= {ENGINE: metadata.get("engine"), USAGE: message.usage_metadata}
    if message.invalid_tool_calls:
        found[INVALID_CALLS] = message.invalid_tool_calls
    return found


def read_choice(choice: Mapping[str, Any], usage: Mapping[str, Any] | None, model: str) -> AIMessage:
    """Return one of OpenAI's choices as the message that it was made of.

    Args:
        choice: From `write_choice`, or from another server.
        usage: OpenAI's usage of the whole answer, which counts where the message does not say its own.
        model: What the message calls the model.
    """
    written = choice["message"]
    found = dict(written.get(FIELD) or {})
    valid, invalid = [], [invalid_tool_call(**_fields_of_invalid(call)) for call in found.pop(INVALID_CALLS, ())]
    known = {call["id"] for call in invalid}
    for call in written.get("tool_calls") or ():
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        if call["id"] in known:
            continue
        if isinstance(loaded := _loaded(arguments), dict):
            valid.append(tool_call(name=name, args=loaded, id=call["id"]))
        else:
            invalid.append(invalid_tool_call(name=name, args=arguments, id=call["id"], error=None))
    fields = _closing_fields(found, choice, usage, model)
    if reasoning := written.get("reasoning_content"):
        fields["additional_kwargs"]["reasoning_content"] = reasoning
    return AIMessage(written.get("content") or "", tool_calls=valid, invalid_tool_calls=invalid, **fields)


def read_delta(
    choice: Mapping[str, Any], usage: Mapping[str, Any] | None, model: str, first_call_index: int = 0
) -> AIMessageChunk | None:
    """Return one of OpenAI's choices of a chunk as a chunk, or None where it says nothing.

    Args:
        choice: From `write_delta`, or from another server.
        usage: OpenAI's usage of the whole answer, if it is known.
        model: What the message calls the model.
        first_call_index: Number of the first tool call among the chunks.
    """
    delta = choice.get("delta") or {}
    fields: dict[str, Any] = {}
    if choice.get("finish_reason"):
        fields = _closing_fields(dict(delta.get(FIELD) or {}), choice, usage, model) | {"chunk_position": "last"}
    if reasoning := delta.get("reasoning_content"):
        fields["additional_kwargs"] = fields.get("additional_kwargs", {}) | {"reasoning_content": reasoning}
    if calls := delta.get("tool_calls"):
        fields["tool_call_chunks"] = [
            tool_call_chunk(
                name=(function := call.get("function") or {}).get("name") or None,
                args=function.get("arguments") or "",
                id=call.get("id"),
                index=first_call_index + call["index"],
            )
            for call in calls
        ]
    text = delta.get("content") or ""
    return AIMessageChunk(content=text, **fields) if text or fields else None


def _closing_fields(
    found: dict[str, Any], choice: Mapping[str, Any], usage: Mapping[str, Any] | None, model: str
) -> dict[str, Any]:
    """Return what a message says once: usage, metadata and norms. `found` is used up."""
    own_usage, engine = found.pop(USAGE, None), found.pop(ENGINE, None)
    metadata: dict[str, Any] = {
        "model_name": model,
        "engine": engine or "remote",
        "model_provider": "langnorm",
        "finish_reason": choice.get("finish_reason"),
    }
    if logprobs := choice.get("logprobs"):
        metadata["logprobs"] = {name: value for name, value in logprobs.items() if value is not None}
    of_tokens = {name: found.pop(name) for name in OF_TOKENS if name in found}
    if found:
        metadata[KEY] = found
    return {
        "response_metadata": metadata,
        "additional_kwargs": {KEY: of_tokens} if of_tokens else {},
        "usage_metadata": own_usage or (usage and _read_usage(usage)),
    }


def _read_usage(usage: Mapping[str, Any]) -> UsageMetadata:
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    read = UsageMetadata(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        total_tokens=usage["total_tokens"],
        output_token_details=OutputTokenDetails(reasoning=reasoning),
    )
    if cached := (usage.get("prompt_tokens_details") or {}).get("cached_tokens"):
        read["input_token_details"] = InputTokenDetails(cache_read=cached)
    return read


def _fields_of_invalid(call: Mapping[str, Any]) -> dict[str, Any]:
    return {name: call.get(name) for name in ("name", "args", "id", "error")}


def _loaded(arguments: Any) -> Any:
    try:
        return json.loads(arguments, strict=False) if arguments else {}
    except (ValueError, RecursionError, TypeError):
        return None

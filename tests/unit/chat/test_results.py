"""What an engine returns becomes messages and chunks that say the same."""

from __future__ import annotations

import json
import threading
from functools import reduce
from operator import add
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from langnorm import ChatLangNorm
from langnorm.chat.chunks import Chunks
from langnorm.chat.preparing import PreparedCall
from langnorm.chat.prompts import Prompt
from langnorm.chat.recording import Recording
from langnorm.chat.results import build_message
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Completion, Delta, FinishReason, Request
from langnorm.norms.baseline import Baseline
from langnorm.testing import ScriptedEngine
from langnorm.text.readers import TagReader, parse_answer
from langnorm.text.steps import split_sentences
from langnorm.text.tool_calls import HERMES, ToolForm


def call_of(*, is_thinking: bool = False, norms: Any = "steps", form: ToolForm | None = None) -> PreparedCall:
    """Return a prepared call that needs no engine."""
    recording = Recording((9,), split_sentences, Baseline(), in_messages=norms != "off", in_scores=False,
                          keeps_tokens=norms == "tokens")  # fmt: skip
    engine: Any = SimpleNamespace(kind="none")
    request = Request((1, 2, 3), Sampling())
    prompt = Prompt((1, 2, 3), is_thinking)
    return PreparedCall(engine, "m", prompt, request, recording, lambda: TagReader(is_thinking=is_thinking, form=form))


def completion_of(pieces: list[str], reason: FinishReason = "stop") -> Completion:
    """Return a completion with these pieces of text."""
    return Completion(list(range(len(pieces))), pieces, reason, [[1.0]] * (len(pieces) - 1))


def completed(pieces: list[str], **call: Any) -> AIMessage:
    """Return the message of a completion with these pieces of text."""
    prepared = call_of(**call)
    return build_message(prepared, completion_of(pieces), parse_answer(prepared.new_reader(), pieces))


def streamed(pieces: list[str], reason: FinishReason = "stop", **call: Any) -> AIMessageChunk:
    """Return the sum of the chunks of the same completion, streamed."""
    chunks = Chunks(call_of(**call))
    deltas = [Delta(((number, piece),)) for number, piece in enumerate(pieces)]
    messages = [c.message for delta in [*deltas, Delta((), completion_of(pieces, reason))] for c in chunks.of(delta)]
    whole = reduce(add, messages)
    assert isinstance(whole, AIMessageChunk)
    return whole


def test_reasoning_and_answer_are_told_apart() -> None:
    """The reasoning is in `reasoning_content` and in the content blocks, the answer in `content`."""
    message = completed(["<think>", "\n", "why", "\n", "</think>", "\n\n", "so", ""])
    assert message.content == "so"
    assert message.additional_kwargs["reasoning_content"] == "why"
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]


def test_usage_counts_reasoning_tokens() -> None:
    """Reasoning tokens are those before the answer; all generated tokens are output."""
    usage = completed(["<think>", "why", "</think>", "\n", "so", ""]).usage_metadata
    assert usage is not None
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (3, 6, 9)
    assert usage["output_token_details"] == {"reasoning": 4}
    plain = completed(["so", ""]).usage_metadata
    assert plain is not None
    assert plain["output_token_details"] == {"reasoning": 0}


def test_thinking_that_never_ends_is_all_reasoning() -> None:
    """An answer that was cut off in its reasoning has no content."""
    message = completed(["why", " not"], is_thinking=True)
    assert message.content == ""
    assert message.additional_kwargs["reasoning_content"] == "why not"
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_token_details"] == {"reasoning": 2}


@pytest.mark.parametrize("norms", ["off", "steps", "tokens"])
def test_norms_are_as_asked_for(norms: str) -> None:
    """`off` leaves no trace, `steps` one without tokens, `tokens` both."""
    message = completed(["a", "b", ""], norms=norms)
    assert ("langnorm" in message.response_metadata) == (norms != "off")
    assert ("langnorm" in message.additional_kwargs) == (norms == "tokens")


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "x}"}}\n</tool_call>'


def test_calls_are_calls_and_not_text() -> None:
    """Marks and JSON are in no content; the reason to stop says that tools are called."""
    message = completed(["<think>", "why", "</think>", "\n\n", "I add.", "\n", *CALL], form=HERMES)
    assert message.content == "I add."
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("add", {"a": 1, "b": "x}"})]
    assert message.tool_calls[0]["id"]
    assert message.response_metadata["finish_reason"] == "tool_calls"
    assert [step["kind"] for step in message.response_metadata["langnorm"]["steps"]][-1] == "tool_call"


def test_without_tools_marks_of_calls_are_text() -> None:
    """Nobody asked for calls, so what looks like one is shown."""
    message = completed([CALL])
    assert message.content == CALL
    assert not message.tool_calls
    assert message.response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "text",
    [
        "Hello!",
        CALL,
        f"{CALL}\n{CALL}",
        f"Look: {CALL} Done.",
        "<tool_call>\n{not json}\n</tool_call>",
        '<tool_call>\n{"name": "f", "arguments": {"a": tru}}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": {"a": NaN}}\n</tool_call>',
        '<tool_call>\n{"name": "\\q", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": {"a": "\\ud83d"}}\n</tool_call>',
        '<tool_call>\n{"name": "\\ude00", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"arguments": {"a": 1}, "name": "f"}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": {"a": "half of',
    ],
)
def test_streamed_calls_are_those_of_invoke(text: str) -> None:
    """Names, arguments, invalid calls, text and metadata are the same, whole or letter by letter."""
    whole, parts = completed(list(text), form=HERMES), streamed(list(text), form=HERMES)
    assert parts.content == whole.content

    def bare(message: AIMessage) -> tuple[Any, Any]:
        valid = [(call["name"], call["args"]) for call in message.tool_calls]
        return valid, [(call["name"], call["args"]) for call in message.invalid_tool_calls]

    assert bare(parts) == bare(whole)
    assert parts.response_metadata == whole.response_metadata
    assert parts.usage_metadata == whole.usage_metadata


@pytest.mark.parametrize(
    "call", ['{"name": "f", "arguments": {"a": "\\ud83d"}}', '{"name": "\\ud83d", "arguments": {}}']
)
def test_half_of_a_character_is_in_no_call(call: str) -> None:
    """It could be sent to nobody, and the next prompt could not have it: what the model wrote can."""
    message = completed(list(f"<tool_call>\n{call}\n</tool_call>"), form=HERMES)
    assert not message.tool_calls
    assert "\\ud83d" in str(message.invalid_tool_calls[0]["args"])
    whole = completed(list(CALL.replace("x}", "\\ud83d\\ude00")), form=HERMES)
    assert whole.tool_calls[0]["args"]["b"] == "\U0001f600"


def test_half_of_a_call_is_never_a_call() -> None:
    """Arguments that broke off at `max_tokens` must not be run, though LangChain would complete them."""
    text = '<tool_call>\n{"name": "delete", "arguments": {"path": "/tmp/a'
    for message in (completed(list(text), form=HERMES), streamed(list(text), "length", form=HERMES)):
        assert not message.tool_calls
        assert [call["name"] for call in message.invalid_tool_calls] == ["delete"]


def test_the_name_of_a_call_is_streamed_before_its_arguments() -> None:
    """The first chunk has the name and the id, the others have parts of the JSON."""
    chunks = Chunks(call_of(form=HERMES))
    found = [c.message for i, piece in enumerate(CALL) for c in chunks.of(Delta(((i, piece),)))]
    calls = [message.tool_call_chunks[0] for message in found if isinstance(message, AIMessageChunk)]
    assert (calls[0]["name"], calls[0]["args"], calls[0]["index"]) == ("add", "{", 0)
    assert calls[0]["id"]
    assert all(call["name"] is None and call["id"] is None for call in calls[1:])
    assert json.loads("".join(call["args"] or "" for call in calls)) == {"a": 1, "b": "x}"}
    assert len(calls) > 10


async def test_the_event_loop_does_not_read_whole_answers() -> None:
    """Nor does it rank them: what is long or many takes its time."""
    loop_thread, threads = threading.current_thread(), []

    def splitter(text: str) -> list[tuple[int, int]]:
        threads.append(threading.current_thread())
        return [(0, len(text))]

    def answer(text: str) -> str:
        threads.append(threading.current_thread())
        return text

    engine = ScriptedEngine(["It is 4."], is_repeated=True)
    chat = ChatLangNorm(engine=engine, temperature=0.7, step_splitter=splitter)
    await chat.ainvoke("2 + 2?")
    selecting = chat.with_selection(n=2, score=None, vote="majority", answer=answer)
    await selecting.ainvoke("2 + 2?")
    assert [chunk.text async for chunk in selecting.astream("2 + 2?")]
    assert threads
    assert loop_thread not in threads

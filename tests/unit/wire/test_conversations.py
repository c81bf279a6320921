"""Conversations go to OpenAI's form and back without loss of what a chat template sees."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import invalid_tool_call, tool_call

from langnorm.chat.message_checks import to_turns
from langnorm.errors import PromptError
from langnorm.wire.conversations import read_messages, write_messages

CALL = tool_call(name="weather", args={"city": "Åre", "days": [1, 2]}, id="call_1")


@pytest.mark.parametrize(
    "messages",
    [
        [SystemMessage("Be brief."), HumanMessage("Hi")],
        [HumanMessage([{"type": "text", "text": "a"}, "b"])],
        [
            HumanMessage("?"),
            AIMessage("", tool_calls=[CALL]),
            ToolMessage("sunny", tool_call_id="call_1", name="weather"),
        ],
        [HumanMessage("?"), AIMessage("4", additional_kwargs={"reasoning_content": "2 + 2"}), HumanMessage("!")],
        [HumanMessage("?"), AIMessage("x", invalid_tool_calls=[invalid_tool_call(name="f", args="{]", id="2")])],
        [HumanMessage("?"), AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": '{"x": 1}'}})],
        [ChatMessage("Hi", role="user")],
    ],
    ids=range(7),
)
def test_a_template_sees_the_same(messages: list[BaseMessage]) -> None:
    """Turns are the same before and after, twice as well as once."""
    written = write_messages(messages)
    read = read_messages(written)
    assert to_turns(read) == to_turns(messages)
    assert write_messages(read) == written


def test_openai_clients_are_understood() -> None:
    """What their libraries send beside the fields of messages is no obstacle."""
    read = read_messages(
        [
            {"role": "developer", "content": "Be brief.", "name": "d"},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "audio": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}},
                    {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{x"}},
                ],
            },
            {"role": "tool", "content": "1", "tool_call_id": "1"},
            {"role": "function", "content": "2", "name": "g"},
        ]
    )
    assert [type(message) for message in read] == [SystemMessage, HumanMessage, AIMessage, ToolMessage, FunctionMessage]
    assert isinstance(answer := read[2], AIMessage)
    assert answer.tool_calls == [tool_call(name="f", args={}, id="1")]
    assert answer.invalid_tool_calls[0]["args"] == "{x"


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        (None, "at least one message"),
        ([], "at least one message"),
        ("Hi", "at least one message"),
        (["Hi"], "Message 0 has the role"),
        ([{"content": "Hi"}], "Message 0 has the role"),
        ([{"role": "usr", "content": "Hi"}], "Did you mean `user`"),
        ([{"role": "user"}], "has the content `None`"),
        ([{"role": "user", "content": 5}], "has the content `5`"),
        ([{"role": "user", "content": [5]}], "has the content"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": ""}}]}], "reads text only"),
        ([{"role": "user", "content": [{"type": "image", "source_type": "url"}]}], "reads text only"),
        ([{"role": "user", "content": [{"type": []}]}], "reads text only"),
        ([{"role": "user", "content": "x", "name": 5}], "has the `name` `5`"),
        ([{"role": "tool", "content": "x"}], "no `tool_call_id`"),
        ([{"role": "function", "content": "x"}], "no `name`"),
        ([{"role": "assistant", "content": "x", "tool_calls": {}}], "has the `tool_calls`|None"),
        ([{"role": "assistant", "content": "x", "tool_calls": "f"}], "has the `tool_calls`"),
        ([{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}], "Give calls as the model gave them"),
        ([{"role": "assistant", "content": "x", "reasoning_content": 1}], "has the `reasoning_content`"),
    ],
)
def test_what_is_malformed_is_refused(messages: Any, match: str) -> None:
    """With the number of the message, and how to mend it."""
    if messages == [{"role": "assistant", "content": "x", "tool_calls": {}}]:
        assert read_messages(messages)  # empty is none
        return
    with pytest.raises(PromptError, match=match):
        read_messages(messages)

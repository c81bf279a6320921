"""Every family of models calls tools through the whole chat model, streamed and at once."""

from __future__ import annotations

import warnings
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm import ChatLangNorm
from langnorm.testing import ScriptedEngine
from tests.support.tool_forms import FAMILIES, TOOLS

CHATML = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}\nTAUGHT<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_of(text: str, taught: str, tokens: tuple[str, ...] = ()) -> ChatLangNorm:
    """Returns a model that was taught a form of calls, has special tokens, and says a text."""
    tokenizer = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.chat_template = CHATML.replace("TAUGHT", "{% raw %}" + taught + "{% endraw %}")
    return ChatLangNorm(engine=ScriptedEngine([text], tokenizer=tokenizer, is_repeated=True), norms="off")


def calls_of(message: AIMessage) -> list[tuple[str, Any]]:
    """Returns names and arguments."""
    return [(call["name"], call["args"]) for call in message.tool_calls]


@pytest.mark.parametrize("name", FAMILIES)
def test_calls_are_those_of_the_family(name: str) -> None:
    """Also where its marks are special tokens, which other special tokens' text is not."""
    family = FAMILIES[name]
    for text, expected in (
        (family.one, [("weather", {"city": "Oslo", "days": 2, "parts": ["a", "b"]})]),
        (family.two, [("weather", {"city": "Oslo"}), ("clock", {})]),
    ):
        chat = chat_of(text, family.template, family.tokens).bind_tools(TOOLS)
        whole = chat.invoke("Weather?")
        parts = reduce(add, chat.stream("Weather?"))
        assert isinstance(parts, AIMessageChunk)
        for message in (whole, parts):
            assert calls_of(message) == expected
            assert (message.content, message.invalid_tool_calls) == ("", [])
            assert message.response_metadata["finish_reason"] == "tool_calls"


def test_a_form_that_is_not_known_is_announced() -> None:
    """What the model writes in it stays text, and the warning says what can be done."""
    chat = chat_of("CALL weather(Oslo)", "Write CALL before a call.").bind_tools(TOOLS)
    with pytest.warns(UserWarning, match=r"in which form.*tool_choice.*response_template"):
        reply = chat.invoke("Weather?")
    assert reply.content == "CALL weather(Oslo)"


def test_where_no_form_is_needed_none_is_missed() -> None:
    """Without tools, or with a call that has to be made."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chat_of("Hi", "Write CALL before a call.").invoke("Weather?").content == "Hi"
        forced = chat_of('{"name": "clock", "arguments": {}}', "Write CALL before a call.")
        assert calls_of(forced.bind_tools(TOOLS, tool_choice="any").invoke("Time?")) == [("clock", {})]


def test_channels_are_told_apart_from_tokens() -> None:
    """The marks of gpt-oss are special tokens, and so is what ends its answer."""
    family = FAMILIES["harmony"]
    text = "<|channel|>analysis<|message|>I add.<|end|><|start|>assistant<|channel|>final<|message|>It is 4.<|return|>"
    chat = chat_of(text, family.template, family.tokens)
    for message in (chat.invoke("2 + 2?"), reduce(add, chat.stream("2 + 2?"))):
        assert message.content == "It is 4."
        assert message.additional_kwargs["reasoning_content"] == "I add."


def test_what_a_tool_is_about_to_say_is_no_answer() -> None:
    """FunctionGemma ends a call with the mark of its result."""
    family = FAMILIES["functiongemma"]
    tokens = (*family.tokens, "<start_function_response>")
    reply = chat_of(family.one + "<start_function_response>", family.template, tokens).bind_tools(TOOLS).invoke("?")
    assert reply.content == ""
    assert len(reply.tool_calls) == 1

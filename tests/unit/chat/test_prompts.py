"""Messages go through the model's own template and come back with reasoning, usage and norms."""

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
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.chat.prompts import render_prompt
from langnorm.chat.turns import message_text, to_turn
from langnorm.errors import ModelError, OptionError, PromptError
from tests.support.odd_values import ODD_VALUES

CALL = {"name": "add", "args": {"a": 1}, "id": "call_1"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Abacus' tokenizer."""
    return AutoTokenizer.from_pretrained(langnorm.abacus.path())


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        (SystemMessage("s"), {"role": "system", "content": "s"}),
        (HumanMessage("h"), {"role": "user", "content": "h"}),
        (
            HumanMessage([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
            {"role": "user", "content": "ab"},
        ),
        (AIMessage("a"), {"role": "assistant", "content": "a"}),
        (
            AIMessage("a", additional_kwargs={"reasoning_content": "r"}),
            {"role": "assistant", "content": "a", "reasoning_content": "r"},
        ),
        (
            ToolMessage("3", tool_call_id="1", name="add"),
            {"role": "tool", "content": "3", "tool_call_id": "1", "name": "add"},
        ),
        (ChatMessage(role="critic", content="c"), {"role": "critic", "content": "c"}),
    ],
)
def test_each_kind_of_message_has_its_turn(message: BaseMessage, turn: dict[str, Any]) -> None:
    """Roles, text, reasoning and names arrive in the template."""
    assert to_turn(message) == turn


def test_tool_calls_reach_the_template() -> None:
    """Calls of an earlier turn are given in the form that templates read."""
    turn = to_turn(AIMessage("", tool_calls=[CALL]))
    assert turn["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}


def test_blocks_that_the_template_writes_itself_are_left_out() -> None:
    """Reasoning and tool calls of another provider's message are not repeated as text."""
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, {"type": "tool_use"}]
    assert message_text(AIMessage(content)) == "a"


def test_an_image_is_refused_clearly() -> None:
    """A text model says so instead of dropping the image."""
    with pytest.raises(PromptError, match="block of type `image_url`.*reads text"):
        message_text(HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}]))


@pytest.mark.parametrize("text", [None, 3, b"x", ["x"]])
def test_a_text_block_without_text_is_refused(text: Any) -> None:
    """The block is shown, and what it needs."""
    with pytest.raises(PromptError, match="has the text block .*Give a string"):
        message_text(HumanMessage([{"type": "text", "text": text}]))


def test_a_result_that_is_not_json_is_refused() -> None:
    """A tool's JSON block may have what JSON has."""
    assert message_text(ToolMessage([{"type": "json", "json": {"é": 1}}], tool_call_id="1")) == '{"é": 1}'
    with pytest.raises(PromptError, match="JSON block that cannot be written as JSON"):
        message_text(ToolMessage([{"type": "json", "json": {1, 2}}], tool_call_id="1"))


def test_half_a_surrogate_pair_is_refused(tokenizer: Any) -> None:
    """Text that no tokenizer can encode is an error that says how to mend it."""
    with pytest.raises(PromptError, match=r"'\\ud800'.*half of a surrogate pair.*Remove it"):
        render_prompt(tokenizer, [HumanMessage("a\ud800")], enable_thinking=True)


@pytest.mark.parametrize("template", [value for value in ODD_VALUES if not isinstance(value, dict | str)], ids=repr)
def test_a_template_of_another_type_is_refused(template: Any) -> None:
    """The error says that a template is a text."""
    odd = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    odd.chat_template = template
    with pytest.raises(OptionError, match="chat_template=.*Jinja"):
        render_prompt(odd, [HumanMessage("x")], enable_thinking=True)


def test_an_unknown_kind_of_message_is_refused() -> None:
    """The error names the kinds that work."""
    with pytest.raises(PromptError, match="`FunctionMessage`.*system, human, AI and tool"):
        to_turn(FunctionMessage(name="f", content="x"))


def test_no_messages_are_refused(tokenizer: Any) -> None:
    """An empty conversation is an error before any compute."""
    with pytest.raises(PromptError, match="no messages"):
        render_prompt(tokenizer, [], enable_thinking=True)


def test_a_model_without_template_is_refused() -> None:
    """The error says how to give a template."""
    bare = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    bare.chat_template = None
    with pytest.raises(ModelError, match="no chat template.*chat_template"):
        render_prompt(bare, [HumanMessage("x")], enable_thinking=True)


def test_a_template_that_refuses_is_quoted() -> None:
    """What the template's author says reaches the user, with the roles that were given."""
    strict = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    strict.chat_template = "{{ raise_exception('Roles must alternate') }}"
    with pytest.raises(PromptError, match="Roles must alternate.*`user`, `user`"):
        render_prompt(strict, [HumanMessage("x"), HumanMessage("y")], enable_thinking=True)


def test_thinking_is_switched_in_the_prompt(tokenizer: Any) -> None:
    """Without thinking the prompt holds an empty thought; a template that opens one is noticed."""
    messages = [HumanMessage("x")]
    on = render_prompt(tokenizer, messages, enable_thinking=True)
    off = render_prompt(tokenizer, messages, enable_thinking=False)
    assert tokenizer.decode(off.ids) == tokenizer.decode(on.ids) + "<think>\n\n</think>\n\n"
    assert not on.is_thinking
    assert not off.is_thinking
    opened = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    opened.chat_template += "<think>\n"
    assert render_prompt(opened, messages, enable_thinking=True).is_thinking

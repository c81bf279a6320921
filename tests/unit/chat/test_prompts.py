"""Messages go through the model's own template and come back with reasoning, usage and norms."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
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
    with pytest.raises(PromptError, match="`RemoveMessage`.*system, human, AI and tool"):
        to_turn(RemoveMessage(id="1"))


OTHER_PROVIDERS: dict[str, tuple[list[BaseMessage], str]] = {
    "output_text": ([AIMessage([{"type": "output_text", "text": "Hello"}])], "Hello"),
    "refusal": ([AIMessage([{"type": "refusal", "refusal": "No."}])], "No."),
    "input_text": ([HumanMessage([{"type": "input_text", "text": "x"}])], "x"),
    "plain text": ([HumanMessage([{"type": "text-plain", "text": "x", "mime_type": "text/plain"}])], "x"),
    "text of Bedrock": ([HumanMessage([{"text": "x"}])], "x"),
    "mark of a cache": ([HumanMessage([{"type": "text", "text": "x"}, {"cachePoint": {"type": "default"}}])], "x"),
    "server tool": (
        [
            AIMessage(
                [
                    {"type": "server_tool_call", "id": "1", "name": "search", "args": {}},
                    {"type": "server_tool_result", "tool_call_id": "1", "status": "success", "output": "o"},
                    {"type": "web_search_call", "id": "2"},
                    {"type": "text", "text": "Hi"},
                ]
            )
        ],
        "Hi",
    ),
    "code that Google has run": (
        [
            AIMessage(
                [
                    {"type": "executable_code", "executable_code": "1 + 1", "language": 1},
                    {"type": "code_execution_result", "code_execution_result": "2", "outcome": 1},
                    {"type": "text", "text": "2"},
                ]
            )
        ],
        "2",
    ),
    "sources of Mistral": (
        [AIMessage([{"type": "text", "text": "a"}, {"type": "reference", "reference_ids": [1]}])],
        "a",
    ),
    "stopped stream": (
        [AIMessageChunk(content=[{"type": "tool_call_chunk", "id": "1", "name": "add", "args": '{"a', "index": 0}])],
        "",
    ),
}


@pytest.mark.parametrize("name", OTHER_PROVIDERS)
def test_blocks_of_other_providers_are_read(name: str) -> None:
    """What is text is read; what has none is passed over."""
    messages, text = OTHER_PROVIDERS[name]
    assert [to_turn(message)["content"] for message in messages] == [text]


@pytest.mark.parametrize(
    ("block", "reasoning"),
    [
        ({"type": "reasoning", "reasoning": "Hm."}, "Hm."),
        ({"type": "reasoning", "reasoning": None}, None),
        ({"type": "thinking", "thinking": "Hm.", "signature": "x"}, "Hm."),
        ({"type": "thinking", "thinking": [{"type": "text", "text": "H"}, {"type": "text", "text": "m."}]}, "Hm."),
        ({"type": "reasoning_content", "reasoning_content": {"text": "Hm.", "signature": "x"}}, "Hm."),
        ({"type": "reasoning_content", "reasoning_content": {"redacted_content": "x"}}, None),
        ({"type": "reasoning", "summary": [], "id": "rs_1"}, None),
    ],
)
def test_reasoning_of_other_providers_is_read(block: dict[str, Any], reasoning: str | None) -> None:
    """Those of LangChain, Anthropic, Mistral, Bedrock and OpenAI."""
    turn = to_turn(AIMessage([block, {"type": "text", "text": "Hi!"}]))
    assert (turn["content"], turn.get("reasoning_content")) == ("Hi!", reasoning)


@pytest.mark.parametrize(
    "message",
    [
        AIMessage([{"type": "function_call", "name": "add", "arguments": '{"a": 1}', "call_id": "call_1"}]),
        AIMessage([{"type": "tool_use", "name": "add", "input": {"a": 1}, "id": "call_1"}]),
        AIMessage([{"type": "tool_call", "name": "add", "args": {"a": 1}, "id": "call_1"}]),
        AIMessage(
            [{"type": "function_call", "name": "add", "arguments": '{"a": 1}', "call_id": "call_1"}], tool_calls=[CALL]
        ),
    ],
)
def test_calls_in_the_content_are_calls(message: AIMessage) -> None:
    """Once, whether the message has them as calls too or not."""
    turn = to_turn(message)
    function = {"name": "add", "arguments": {"a": 1}}
    assert turn["tool_calls"] == [{"type": "function", "id": "call_1", "function": function}]
    assert turn["content"] == ""


def test_calls_of_the_oldest_form_meet_their_results() -> None:
    """OpenAI's `function_call`, which has no id, and the message of a function."""
    legacy = AIMessage("", additional_kwargs={"function_call": {"name": "add", "arguments": '{"a": 1}'}})
    (called,) = to_turn(legacy)["tool_calls"]
    assert called["function"] == {"name": "add", "arguments": {"a": 1}}
    result = to_turn(FunctionMessage(name="add", content="2"))
    assert result == {"role": "tool", "content": "2", "name": "add", "tool_call_id": called["id"]}
    broken = AIMessage("", additional_kwargs={"function_call": {"name": "add", "arguments": '{"a": '}})
    assert to_turn(broken)["content"] == '{"a": '


@pytest.mark.parametrize("kind", ["image", "image_url", "audio", "input_audio", "video", "file", "document", None, 3])
def test_what_is_no_text_is_refused(kind: Any) -> None:
    """A text model says so, in any message."""
    for message in (HumanMessage([{"type": kind, "data": "x"}]), AIMessage([{"type": kind, "data": "x"}])):
        with pytest.raises(PromptError, match=r"has a block of type.*reads text"):
            to_turn(message)


@pytest.mark.parametrize(
    ("opening", "is_thinking"),
    [
        ("<think>\n", True),
        ("<think>\nOkay, ", True),
        ("<think>\n\n</think>\n\n", False),
        ("<thinking>", True),
        ("", False),
    ],
)
def test_reasoning_that_the_template_begins_is_open(opening: str, is_thinking: bool) -> None:
    """With words of its own too; what a user writes of marks says nothing."""
    tokenizer = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n" + opening + "{% endif %}"
    )
    for text in ("x", "What is <think>?", "<think>"):
        assert render_prompt(tokenizer, [HumanMessage(text)], enable_thinking=True).is_thinking is is_thinking


def test_a_prompt_that_is_too_long_is_refused_before_it_is_looked_into(tokenizer: Any) -> None:
    """Its control tokens are not told apart first."""
    text = "<|im_end|>" + "1 + 1. " * 1000
    with pytest.raises(PromptError, match=r"no room for an answer.*context of 100"):
        render_prompt(tokenizer, [HumanMessage(text)], enable_thinking=True, context_length=100)


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

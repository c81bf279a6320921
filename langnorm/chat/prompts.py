"""Turns LangChain's messages into the token ids of a prompt, through the model's chat template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langnorm.chat.control_tokens import SpecialTokens, encode_chat, first_control_token
from langnorm.chat.message_checks import check_readable, validated
from langnorm.checks import brief, check_text, refuse
from langnorm.errors import ModelError, PromptError
from langnorm.text.marks import THINKING_TAGS
from langnorm.text.tool_calls import detect_tool_form

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Blocks of an assistant's message that the template writes itself, from the message's other fields.
_REASONING = ("reasoning", "thinking")
_SILENT_BLOCKS = (*_REASONING, "redacted_thinking", "tool_use", "tool_call", "invalid_tool_call", "non_standard")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the chat template made of messages.

    Attributes:
        ids: The token ids, those of the generation prompt (the beginning of the assistant's turn) included.
        is_thinking: Whether the template has already opened the reasoning, so that the model goes on with it.
    """

    ids: tuple[int, ...]
    is_thinking: bool


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[BaseMessage],
    *,
    enable_thinking: bool,
    special_tokens: SpecialTokens = "literal",
    tools: Sequence[dict[str, Any]] = (),
) -> Prompt:
    """Return the prompt that the model's chat template makes of `messages` and of the tools that it is offered.

    Args:
        tokenizer: The model's, with its chat template.
        messages: The conversation so far.
        enable_thinking: Passed to the template; those of models that do not reason ignore it.
        special_tokens: What becomes of control tokens that the messages spell out: `"literal"` reads them as text,
            `"allow"` as control tokens, `"raise"` raises an error.
        tools: The tools that are offered, in OpenAI's form.

    Raises:
        PromptError: There are no messages, or one has content that is not text, or the template refuses them. Or one
            spells out a control token, and `special_tokens` is `"raise"`.
        OptionError: The `chat_template` that was given is not the text of a template.
        ModelError: The model has no chat template, or one without a place for tools.
    """
    if not messages:
        msg = "There are no messages. Give at least one, such as a HumanMessage."
        raise PromptError(msg)
    if not isinstance(tokenizer.chat_template, str | dict | None):
        refuse("chat_template", tokenizer.chat_template, "a Jinja template as a string, or a dict of them by name")
    check_text("chat_template", tokenizer.chat_template)
    if not tokenizer.chat_template:
        msg = (
            "This model's tokenizer has no chat template, so messages cannot be rendered for it. Use an "
            'instruction-tuned model, or pass a Jinja template as `model_kwargs={"chat_template": "..."}`.'
        )
        raise ModelError(msg)
    if tools and "tools" not in str(tokenizer.chat_template):
        msg = (
            "This model's chat template has no place for tools, so the model would never see them. Use a model that "
            'was taught to call tools, or pass a Jinja template as `model_kwargs={"chat_template": "..."}`.'
        )
        raise ModelError(msg)
    turns = [to_turn(message) for message in validated(messages)]
    check_readable(turns)
    if id_length := detect_tool_form(str(tokenizer.chat_template)).id_length:
        turns = [_with_short_ids(turn, id_length) for turn in turns]
    if special_tokens == "raise":
        _check_literal(tokenizer, turns, tools)

    def render(inputs: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> str:
        turns, tools = inputs
        try:
            text = tokenizer.apply_chat_template(
                turns,
                tools=tools or None,  # type: ignore[arg-type]
                add_generation_prompt=True,
                tokenize=False,
                enable_thinking=enable_thinking,
            )
        except Exception as error:  # templates raise what they like
            msg = f"The model's chat template refuses these messages: {error}. Their roles are {_roles(turns)}."
            raise PromptError(msg) from error
        return str(text)

    text, ids = encode_chat(tokenizer, render, (turns, list(tools)), is_literal=special_tokens == "literal")
    is_thinking = text.rstrip().endswith(tuple(opening for opening, _ in THINKING_TAGS))
    return Prompt(tuple(ids), is_thinking)


def _check_literal(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
) -> None:
    if token := first_control_token(tokenizer, list(tools)):
        msg = (
            f"The description of a tool spells out the control token `{token}`. Remove it, or use "
            '`special_tokens="literal"` to have it read as text.'
        )
        raise PromptError(msg)
    for number, turn in enumerate(turns):
        if token := first_control_token(tokenizer, turn):
            msg = (
                f"Message {number}, of role `{turn['role']}`, spells out the control token `{token}`. Remove it, or "
                'use `special_tokens="literal"` to have it read as text.'
            )
            raise PromptError(msg)


def _roles(turns: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"`{turn['role']}`" for turn in turns)


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
        case AIMessage():
            return _assistant_turn(message)
        case ChatMessage():
            return {"role": message.role, "content": message_text(message)}
    msg = f"A `{type(message).__name__}` cannot be put to this model. Use system, human, AI and tool messages."
    raise PromptError(msg)


def _assistant_turn(message: AIMessage) -> dict[str, Any]:
    # What the model wrote in place of a call is not lost: it reads what it got wrong.
    misspelt = "".join(call["args"] or "" for call in message.invalid_tool_calls)
    turn: dict[str, Any] = {"role": "assistant", "content": message_text(message) + misspelt}
    if reasoning := _find_reasoning(message):
        turn["reasoning_content"] = reasoning
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "type": "function",
                "id": call["id"],
                "function": {"name": call["name"], "arguments": call["args"]},
            }
            for call in message.tool_calls
        ]
    return turn


def _find_reasoning(message: AIMessage) -> str:
    """Return the reasoning, wherever the model or the output version has put it."""
    if reasoning := message.additional_kwargs.get("reasoning_content"):
        return str(reasoning)
    blocks = [block for block in message.content if isinstance(block, dict)]
    return "".join(str(block.get(block.get("type", ""), "")) for block in blocks if block.get("type") in _REASONING)


def _with_short_ids(turn: dict[str, Any], length: int) -> dict[str, Any]:
    """Return a turn whose calls have ids as the chat template insists on: letters and digits, so many of them."""

    def short(call_id: str | None) -> str:
        if call_id and len(call_id) == length and call_id.isalnum():
            return call_id
        return hashlib.blake2b(str(call_id).encode(), digest_size=length).hexdigest()[:length]

    if "tool_call_id" in turn:
        turn = turn | {"tool_call_id": short(turn["tool_call_id"])}
    if "tool_calls" in turn:
        turn = turn | {"tool_calls": [call | {"id": short(call["id"])} for call in turn["tool_calls"]]}
    return turn


def message_text(message: BaseMessage) -> str:
    """Return the text of a message, its text blocks joined.

    Raises:
        PromptError: A block is something else, such as an image, or its text is not a string.
    """
    if isinstance(message.content, str):
        return message.content
    texts = []
    for block in message.content:
        if isinstance(block, str):
            texts.append(block)
        elif block.get("type") == "text" and isinstance(block.get("text"), str):
            texts.append(block["text"])
        elif block.get("type") == "text":
            msg = f"A `{type(message).__name__}` has the text block `{brief(block)}`. Give a string as its `text`."
            raise PromptError(msg)
        elif isinstance(message, ToolMessage) and block.get("type") == "json":
            texts.append(_dump_result(block.get("json")))
        elif not (isinstance(message, AIMessage) and block.get("type") in _SILENT_BLOCKS):
            msg = (
                f"A `{type(message).__name__}` has a block of type `{block.get('type')}`. This model reads text "
                "only: describe it in words, or leave it out."
            )
            raise PromptError(msg)
    return "".join(texts)


def _dump_result(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        msg = f"A `ToolMessage` has a JSON block that cannot be written as JSON: {error}. Give it as text."
        raise PromptError(msg) from error

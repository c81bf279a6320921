"""Turns LangChain's messages into the token ids of a prompt, through the model's chat template."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langnorm.chat.control_tokens import SpecialTokens, encode_chat, first_control_token
from langnorm.chat.earlier_calls import arrange_calls
from langnorm.chat.message_checks import to_turns
from langnorm.checks import check_text, refuse
from langnorm.engines.base import check_prompt_length
from langnorm.errors import ModelError, PromptError
from langnorm.text.marks import THINKING_TAGS, is_reasoning_open
from langnorm.text.tool_calls import detect_tool_form

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from transformers import PreTrainedTokenizerBase

# Templates of gpt-oss and its kin read earlier reasoning from a field of this name.
_READS_THINKING = re.compile(r"""\bmessage\.thinking\b|['"]thinking['"]\s*(?:\]|in\b)""")


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
    context_length: int | None = None,
) -> Prompt:
    """Return the prompt that the model's chat template makes of `messages` and of the tools that it is offered.

    Args:
        tokenizer: The model's, with its chat template.
        messages: The conversation so far.
        enable_thinking: Passed to the template; those of models that do not reason ignore it.
        special_tokens: What becomes of control tokens that the messages spell out: `"literal"` reads them as text,
            `"allow"` as control tokens, `"raise"` raises an error.
        tools: The tools that are offered, in OpenAI's form.
        context_length: Most tokens of prompt and answer together, or None for no limit.

    Raises:
        PromptError: There are no messages, or one has content that is not text, or the template refuses them, or leaves
            out earlier calls, or there are too many tokens. Or one spells out a control token, and `special_tokens` is
            `"raise"`.
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
            "This model's chat template has no place for tools, so the model would never see them, and a call that it "
            "has to make would be made up. Use a model that was taught to call tools, or pass a Jinja template as "
            '`model_kwargs={"chat_template": "..."}`. To have any model fill a schema, use `with_structured_output`.'
        )
        raise ModelError(msg)
    turns = to_turns(messages)
    if id_length := detect_tool_form(str(tokenizer.chat_template)).id_length:
        turns = [_with_short_ids(turn, id_length) for turn in turns]
    if special_tokens == "raise":
        _check_literal(tokenizer, turns, tools)

    if _READS_THINKING.search(str(tokenizer.chat_template)):
        turns = [_with_thinking(turn) for turn in turns]

    def render(inputs: tuple[list[dict[str, Any]], list[dict[str, Any]]], *, add_generation_prompt: bool = True) -> str:
        turns, tools = inputs
        try:
            text = _apply_template(
                tokenizer, turns, tools, add_generation_prompt=add_generation_prompt, enable_thinking=enable_thinking
            )
        except Exception as error:  # templates raise what they like
            msg = f"The model's chat template refuses these messages: {error}. Their roles are {_roles(turns)}."
            raise PromptError(msg) from error
        return text

    offered = list(tools)
    turns = arrange_calls(turns, lambda turns: render((turns, offered)))
    text, ids = encode_chat(
        tokenizer,
        render,
        (turns, offered),
        is_literal=special_tokens == "literal",
        check_length=lambda length: check_prompt_length(length, context_length),
    )
    is_thinking = False
    if any(opening in text for opening, _ in THINKING_TAGS):
        # What the users' texts say of marks is not the template's.
        beginning = _added(render((turns, offered), add_generation_prompt=False), text)
        # Some templates always write the beginning of an answer, whether it is asked for or not.
        is_thinking = is_reasoning_open(beginning) or text.rstrip().endswith(tuple(o for o, _ in THINKING_TAGS))
    return Prompt(tuple(ids), is_thinking)


def _apply_template(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], tools: list[dict[str, Any]], **options: Any
) -> str:
    offered: Any = tools or None
    if all(turn["content"] is not None for turn in turns):
        return str(tokenizer.apply_chat_template(turns, tools=offered, tokenize=False, **options))
    # `apply_chat_template` leaves out what is None, and a template that asks for it finds nothing.
    from transformers.utils.chat_template_utils import render_jinja_template

    template = tokenizer.get_chat_template(tools=offered)
    known: dict[str, Any] = {**tokenizer.special_tokens_map, **options}
    rendered: Any = render_jinja_template(conversations=[turns], tools=offered, chat_template=template, **known)
    return str(rendered[0][0])


def _added(before: str, text: str) -> str:
    """Return a text from where it differs from the one before."""
    if text.startswith(before):
        return text[len(before) :]
    start = next(at for at, (old, new) in enumerate(zip(before + "\0", text + "\1", strict=False)) if old != new)
    return text[start:]


def _with_thinking(turn: dict[str, Any]) -> dict[str, Any]:
    """Return a turn whose reasoning has the name by which gpt-oss' template knows it.

    That one refuses reasoning beside text in a turn with calls, so there the reasoning is left out.
    """
    if "reasoning_content" not in turn:
        return turn
    if turn["content"] and turn.get("tool_calls"):
        return {key: value for key, value in turn.items() if key != "reasoning_content"}
    return turn | {"thinking": turn["reasoning_content"]}


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

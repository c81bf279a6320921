"""LangChain messages to prompt tokens, and generated tokens back to messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import OutputTokenDetails, UsageMetadata

from langnorm.errors import ModelError, PromptError
from langnorm.literal import SpecialTokens, encode_chat, first_control_token
from langnorm.steps import Splitter, split_steps
from langnorm.text import THINKING_TAGS, Segment, split_reasoning
from langnorm.trace import KEY, build_trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.base import Completion
    from langnorm.norms.baseline import Baseline

Norms = Literal["steps", "tokens"]

# Blocks of an assistant's message that the template writes itself, from the message's other fields.
_SILENT_BLOCKS = ("reasoning", "thinking", "redacted_thinking", "tool_use", "tool_call", "non_standard")


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages, rendered.

    Attributes:
        ids: The token ids.
        is_thinking: Whether the template has already opened the reasoning.
    """

    ids: tuple[int, ...]
    is_thinking: bool


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[BaseMessage],
    *,
    enable_thinking: bool,
    special_tokens: SpecialTokens = "literal",
) -> Prompt:
    """Return the prompt that the model's chat template makes of `messages`.

    Raises:
        PromptError: There are no messages, or one has content that is not text, or the template refuses them. Or one
            spells out a control token, and `special_tokens` is `"raise"`.
        ModelError: The model has no chat template.
    """
    if not messages:
        msg = "There are no messages. Give at least one, such as a HumanMessage."
        raise PromptError(msg)
    if not tokenizer.chat_template:
        msg = (
            "This model's tokenizer has no chat template, so messages cannot be rendered for it. Use an "
            'instruction-tuned model, or pass a Jinja template as `model_kwargs={"chat_template": "..."}`.'
        )
        raise ModelError(msg)
    turns = [to_turn(message) for message in messages]
    if special_tokens == "raise":
        _check_literal(tokenizer, turns)

    def render(turns: list[dict[str, Any]]) -> str:
        try:
            text = tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False, enable_thinking=enable_thinking
            )
        except Exception as error:  # templates raise what they like
            msg = f"The model's chat template refuses these messages: {error}. Their roles are {_roles(turns)}."
            raise PromptError(msg) from error
        return str(text)

    text, ids = encode_chat(tokenizer, render, turns, is_literal=special_tokens == "literal")
    is_thinking = text.rstrip().endswith(tuple(opening for opening, _ in THINKING_TAGS))
    return Prompt(tuple(ids), is_thinking)


def _check_literal(tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, Any]]) -> None:
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
            return {"role": "system", "content": text_of(message)}
        case HumanMessage():
            return {"role": "user", "content": text_of(message)}
        case ToolMessage():
            turn = {"role": "tool", "content": text_of(message), "tool_call_id": message.tool_call_id}
            return turn | ({"name": message.name} if message.name else {})
        case AIMessage():
            return _assistant_turn(message)
        case ChatMessage():
            return {"role": message.role, "content": text_of(message)}
    msg = f"A `{type(message).__name__}` cannot be put to this model. Use system, human, AI and tool messages."
    raise PromptError(msg)


def _assistant_turn(message: AIMessage) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": "assistant", "content": text_of(message)}
    if reasoning := message.additional_kwargs.get("reasoning_content"):
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


def text_of(message: BaseMessage) -> str:
    """Return the text of a message, its text blocks joined.

    Raises:
        PromptError: A block is something else, such as an image.
    """
    if isinstance(message.content, str):
        return message.content
    texts = []
    for block in message.content:
        if isinstance(block, str):
            texts.append(block)
        elif block.get("type") == "text":
            texts.append(block["text"])
        elif isinstance(message, ToolMessage) and block.get("type") == "json":
            texts.append(json.dumps(block.get("json"), ensure_ascii=False))
        elif not (isinstance(message, AIMessage) and block.get("type") in _SILENT_BLOCKS):
            msg = (
                f"A `{type(message).__name__}` has a block of type `{block.get('type')}`. This model reads text "
                "only: describe it in words, or leave it out."
            )
            raise PromptError(msg)
    return "".join(texts)


def join(segments: Sequence[Segment], part: str) -> str:
    """Return the text of one part: `"reasoning"` or `"answer"`."""
    return "".join(segment.text for segment in segments if segment.part == part)


@dataclass(frozen=True, slots=True)
class Recording:
    """What a message says of norms.

    Attributes:
        norms: Whether there is a trace, and whether it keeps the norms of every token.
        layers: The recorded layers.
        splitter: What a step is.
        baseline: What the norms are compared with.
    """

    norms: Norms
    layers: tuple[int, ...]
    splitter: Splitter
    baseline: Baseline


def closing_fields(
    prompt: Prompt, completion: Completion, *, recording: Recording | None, model_name: str
) -> dict[str, Any]:
    """Return what a message says once, when it is complete: usage, metadata and norms.

    A whole message and the last chunk of a streamed one have the same.
    """
    segments = split_reasoning(completion.pieces, is_thinking=prompt.is_thinking)
    num_tokens = len(completion.token_ids)
    metadata: dict[str, Any] = {
        "model_name": model_name,
        "model_provider": "langnorm",
        "finish_reason": completion.finish_reason,
    }
    extra: dict[str, Any] = {}
    if recording:
        from langnorm.norms.reading import read_norms

        trace = build_trace(
            num_tokens,
            recording.layers,
            completion.norms,
            split_steps(segments, recording.splitter),
            read_norms(completion.norms, recording.layers, recording.baseline),
            keep_tokens=recording.norms == "tokens",
        )
        metadata[KEY] = trace.to_dict()
        if trace.token_norms is not None:
            extra[KEY] = {"token_norms": [list(row) for row in trace.token_norms]}
    if completion.interventions:
        metadata[KEY] = metadata.get(KEY, {}) | completion.interventions
    usage = UsageMetadata(
        input_tokens=len(prompt.ids),
        output_tokens=num_tokens,
        total_tokens=len(prompt.ids) + num_tokens,
        output_token_details=OutputTokenDetails(reasoning=_num_reasoning_tokens(segments, num_tokens)),
    )
    return {"response_metadata": metadata, "additional_kwargs": extra, "usage_metadata": usage}


def to_message(prompt: Prompt, completion: Completion, closing: dict[str, Any]) -> AIMessage:
    """Return the whole message of a completion, given its `closing_fields`."""
    segments = split_reasoning(completion.pieces, is_thinking=prompt.is_thinking)
    fields = dict(closing)
    if reasoning := join(segments, "reasoning"):
        fields["additional_kwargs"] = closing["additional_kwargs"] | {"reasoning_content": reasoning}
    return AIMessage(content=join(segments, "answer"), **fields)


def _num_reasoning_tokens(segments: Sequence[Segment], num_tokens: int) -> int:
    """Return how many tokens came before the answer, the marks of the reasoning counted in."""
    if not any(segment.part == "reasoning" for segment in segments):
        return 0
    return next((segment.token for segment in segments if segment.part == "answer"), num_tokens)

"""How many tokens a conversation takes, by the model's own tokenizer and chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage

from langnorm.chat.control_tokens import SpecialTokens
from langnorm.chat.message_checks import to_turns
from langnorm.chat.prompts import render_prompt
from langnorm.checks import check_text
from langnorm.errors import PromptError

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from transformers import PreTrainedTokenizerBase

_AROUND_A_TURN = 8  # tokens of the role and the marks of a turn, where no template can say


def count_prompt_tokens(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[BaseMessage],
    tools: Sequence[dict[str, Any]] = (),
    *,
    enable_thinking: bool = True,
    special_tokens: SpecialTokens = "literal",
) -> int:
    """Return how many tokens a prompt has, with the beginning of the answer.

    Whoever trims a conversation also asks for parts of it that a template refuses, such as an answer without its
    question. Such a part is counted with a short question before it, or, failing that, as the sum of its turns.

    Args:
        tokenizer: The model's.
        messages: The conversation, or a part of one.
        tools: The tools that are offered, in OpenAI's form.
        enable_thinking: Passed to the template.
        special_tokens: What becomes of control tokens that the messages spell out; those that are refused are counted
            as text.

    Raises:
        PromptError: A message has something else than text.
        ModelError: The model has no chat template, or none with a place for tools.
    """
    if not messages:
        return 0

    def count(messages: Sequence[BaseMessage]) -> int:
        read_as: SpecialTokens = "allow" if special_tokens == "allow" else "literal"
        prompt = render_prompt(
            tokenizer, messages, enable_thinking=enable_thinking, special_tokens=read_as, tools=tools
        )
        return len(prompt.ids)

    turns = to_turns(messages)  # what no template could take is an error
    for before in ([], [HumanMessage("?")]):
        try:
            return count([*before, *messages])
        except PromptError:
            continue
    texts = [json.dumps(list(turn.values()), ensure_ascii=False, default=str) for turn in turns]
    return sum(len(token_ids(tokenizer, text)) + _AROUND_A_TURN for text in texts)


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of the tokens of a text by itself."""
    check_text("text", text)
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids

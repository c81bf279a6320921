"""What training learns of a conversation."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.abacus.generator.base import Example
from langnorm.abacus.training.lessons import Conversation, render_conversation

TOKENIZER: Any = AutoTokenizer.from_pretrained(langnorm.abacus.path())

CONVERSATION = (
    {"role": "user", "content": "Hi!"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye!"},
    {"role": "assistant", "content": "Goodbye!"},
)


def learnt(conversation: Conversation, weight: float = 1.0) -> str:
    """Return the tokens of that weight as text."""
    return TOKENIZER.decode([i for i, w in zip(conversation.ids, conversation.weights, strict=True) if w == weight])


def test_all_that_the_assistant_says_is_learnt() -> None:
    """Earlier turns of the assistant weigh as much as the last one; the rest weighs a tenth."""
    conversation = render_conversation(TOKENIZER, Example("chat", CONVERSATION, enable_thinking=False), "all")
    assert learnt(conversation) == "Hello!<|im_end|>Goodbye!<|im_end|>\n"
    assert set(conversation.weights) == {0.1, 1.0}


def test_earlier_turns_are_learnt_before_an_answer_that_thinks() -> None:
    """Where the prompt ends with the assistant's header, that one is the completion's own, not an earlier turn's."""
    messages = (*CONVERSATION[:3], {**CONVERSATION[3], "reasoning_content": "A farewell."})
    conversation = render_conversation(TOKENIZER, Example("chat", messages), "all")
    assert learnt(conversation) == "Hello!<|im_end|><think>\nA farewell.\n</think>\n\nGoodbye!<|im_end|>\n"
    first = TOKENIZER.decode(TOKENIZER("Hello!")["input_ids"][:1])
    assert learnt(render_conversation(TOKENIZER, Example("chat", messages), "thinking"), 0.0) == first


def test_earlier_turns_do_not_teach_to_answer_without_thinking() -> None:
    """An earlier turn's first token weighs nothing; in arithmetic all of it little."""
    conversation = render_conversation(TOKENIZER, Example("chat", CONVERSATION, enable_thinking=False), "thinking")
    first = TOKENIZER.decode(TOKENIZER("Hello!")["input_ids"][:1])
    assert learnt(conversation, 0.0) == first
    assert learnt(conversation) == "Hello!".removeprefix(first) + "<|im_end|>Goodbye!<|im_end|>\n"
    conversation = render_conversation(
        TOKENIZER, Example("arithmetic", CONVERSATION, enable_thinking=False), "thinking"
    )
    assert learnt(conversation, 0.0) == first
    assert learnt(conversation) == "Goodbye!<|im_end|>\n"

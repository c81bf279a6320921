"""What training learns of a conversation."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.abacus.generator.base import Example
from langnorm.abacus.training.lessons import Row, row_of

TOKENIZER: Any = AutoTokenizer.from_pretrained(langnorm.abacus.path())

CONVERSATION = (
    {"role": "user", "content": "Hi!"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye!"},
    {"role": "assistant", "content": "Goodbye!"},
)


def learnt(row: Row, weight: float = 1.0) -> str:
    """Return the tokens of that weight as text."""
    return TOKENIZER.decode([i for i, w in zip(row.ids, row.weights, strict=True) if w == weight])


def test_all_that_the_assistant_says_is_learnt() -> None:
    """Earlier turns of the assistant weigh as much as the last one; the rest weighs a tenth."""
    row = row_of(TOKENIZER, Example("chat", CONVERSATION, enable_thinking=False), "all")
    assert learnt(row) == "Hello!<|im_end|>Goodbye!<|im_end|>\n"
    assert set(row.weights) == {0.1, 1.0}


def test_earlier_turns_are_learnt_before_an_answer_that_thinks() -> None:
    """Where the prompt ends with the assistant's header, that one is the completion's own, not an earlier turn's."""
    messages = (*CONVERSATION[:3], {**CONVERSATION[3], "reasoning_content": "A farewell."})
    row = row_of(TOKENIZER, Example("chat", messages), "all")
    assert learnt(row) == "Hello!<|im_end|><think>\nA farewell.\n</think>\n\nGoodbye!<|im_end|>\n"
    first = TOKENIZER.decode(TOKENIZER("Hello!")["input_ids"][:1])
    assert learnt(row_of(TOKENIZER, Example("chat", messages), "thinking"), 0.0) == first


def test_earlier_turns_do_not_teach_to_answer_without_thinking() -> None:
    """An earlier turn's first token weighs nothing; in arithmetic all of it little."""
    row = row_of(TOKENIZER, Example("chat", CONVERSATION, enable_thinking=False), "thinking")
    first = TOKENIZER.decode(TOKENIZER("Hello!")["input_ids"][:1])
    assert learnt(row, 0.0) == first
    assert learnt(row) == "Hello!".removeprefix(first) + "<|im_end|>Goodbye!<|im_end|>\n"
    row = row_of(TOKENIZER, Example("arithmetic", CONVERSATION, enable_thinking=False), "thinking")
    assert learnt(row, 0.0) == first
    assert learnt(row) == "Goodbye!<|im_end|>\n"

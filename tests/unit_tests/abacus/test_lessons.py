"""What training learns of a conversation."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.abacus.data.base import Example
from langnorm.abacus.lessons import Row, row_of

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
    """Earlier turns weigh as much as the last one, but for what decides whether to think; the rest weighs a tenth."""
    row = row_of(TOKENIZER, Example("chat", CONVERSATION, enable_thinking=False))
    first = TOKENIZER.decode(TOKENIZER("Hello!")["input_ids"][:1])
    assert learnt(row, 0.0) == first
    assert learnt(row) == "Hello!".removeprefix(first) + "<|im_end|>Goodbye!<|im_end|>\n"
    assert set(row.weights) == {0.0, 0.1, 1.0}


def test_earlier_turns_are_learnt_before_an_answer_that_thinks() -> None:
    """Where the prompt ends with the assistant's header, that one is the completion's own, not an earlier turn's."""
    messages = (*CONVERSATION[:3], {**CONVERSATION[3], "reasoning_content": "A farewell."})
    row = row_of(TOKENIZER, Example("chat", messages))
    first = TOKENIZER.decode(TOKENIZER("Hello!")["input_ids"][:1])
    assert learnt(row, 0.0) == first
    later = "<|im_end|><think>\nA farewell.\n</think>\n\nGoodbye!<|im_end|>\n"
    assert learnt(row) == "Hello!".removeprefix(first) + later


def test_earlier_answers_do_not_teach_to_do_sums_without_thinking() -> None:
    """In arithmetic, where the answer hangs on the reasoning, an earlier turn weighs no more than the prompt."""
    row = row_of(TOKENIZER, Example("arithmetic", CONVERSATION, enable_thinking=False))
    assert learnt(row, 0.0) == TOKENIZER.decode(TOKENIZER("Hello!")["input_ids"][:1])
    assert learnt(row) == "Goodbye!<|im_end|>\n"

"""Abacus' tokenizer can spell everything, digits alone, and the template is what training saw."""

from __future__ import annotations

import random
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.abacus.generator import corpus
from langnorm.abacus.tokenizer import CONTROL_TOKENS, MARKUP_TOKENS, VOCABULARY_SIZE, render

TOKENIZER: Any = AutoTokenizer.from_pretrained(langnorm.abacus.path())


def test_the_vocabulary_is_small() -> None:
    """All entries fit, and every control token is one of them."""
    assert len(TOKENIZER) == VOCABULARY_SIZE
    for token in CONTROL_TOKENS + MARKUP_TOKENS:
        assert TOKENIZER.decode(TOKENIZER(token)["input_ids"]) == token
        assert len(TOKENIZER(token)["input_ids"]) == 1


@given(st.text())
def test_every_text_survives(text: str) -> None:
    """Any text comes back, in its composed form, as with Qwen2."""
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == unicodedata.normalize("NFC", text)


@given(st.integers(min_value=0, max_value=10**9))
def test_digits_stand_alone(number: int) -> None:
    """A number has one token per digit."""
    assert len(TOKENIZER(str(number))["input_ids"]) == len(str(number))


def test_the_prompt_of_an_example_is_a_beginning_of_its_whole() -> None:
    """What is generated follows the prompt exactly as in training; `render` checks it for every example."""
    rng = random.Random(3)
    for _ in range(200):
        example = corpus.draw(rng, "train")
        prompt, completion = render(TOKENIZER, example)
        assert completion[-2:] == TOKENIZER("<|im_end|>\n")["input_ids"]
        assert TOKENIZER.decode(prompt).endswith("<think>\n\n</think>\n\n") != example.enable_thinking


@pytest.mark.parametrize("num_tools", [0, 2])
def test_the_template_is_qwens(num_tools: int) -> None:
    """ChatML, tools as JSON lines, calls and results in their tags."""
    tools = [{"type": "function", "function": {"name": f"tool_{i}"}} for i in range(num_tools)]
    call = {"type": "function", "function": {"name": "tool_0", "arguments": {"a": 1}}}
    text = TOKENIZER.apply_chat_template(
        [
            {"role": "user", "content": "Go."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "3"},
            {"role": "tool", "content": "4"},
        ],
        tools=tools or None,
        add_generation_prompt=True,
        tokenize=False,
        enable_thinking=False,
    )
    assert ("<tools>" in text) == bool(num_tools)
    assert text.count('{"type": "function"') == num_tools
    assert '<tool_call>\n{"name": "tool_0", "arguments": {"a": 1}}\n</tool_call><|im_end|>' in text
    assert (
        "<|im_start|>user\n<tool_response>\n3\n</tool_response>\n<tool_response>\n4\n</tool_response><|im_end|>" in text
    )
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")

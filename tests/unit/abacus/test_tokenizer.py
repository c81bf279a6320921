"""Abacus' tokenizer can spell everything, digits alone, and the template is what training saw."""

from __future__ import annotations

import random
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.abacus.generator import corpus
from langnorm.abacus.generator.base import Example
from langnorm.abacus.tokenizer import CONTROL_TOKENS, MARKUP_TOKENS, VOCABULARY_SIZE, main, render

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


def test_training_writes_a_tokenizer_of_the_same_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few examples give fewer merges; control tokens, digits and the template are those of the bundled one."""
    monkeypatch.setattr(sys, "argv", ["tokenizer", "--out", str(tmp_path), "--num-examples", "200"])
    main()
    trained: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert len(trained) <= VOCABULARY_SIZE
    assert trained.chat_template == TOKENIZER.chat_template
    assert trained.eos_token == TOKENIZER.eos_token
    for token in CONTROL_TOKENS + MARKUP_TOKENS:
        assert len(trained(token)["input_ids"]) == 1
    assert len(trained("385")["input_ids"]) == 3
    text = "Mia has 12 boxes: naïve?\n"
    assert trained.decode(trained(text)["input_ids"]) == text


def test_a_template_that_changes_prompts_is_refused() -> None:
    """What was read while answering has to be what was learnt."""

    class Changing:
        """Renders a prompt in another way once it is answered."""

        def apply_chat_template(self, messages: list[Any], **_options: Any) -> str:
            """Returns the number of messages, in words."""
            return "one" if len(messages) == 1 else "two"

    messages = ({"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello!"})
    with pytest.raises(ValueError, match="renders the prompt differently once it is answered"):
        render(Changing(), Example("chat", messages, enable_thinking=False))  # type: ignore[arg-type]

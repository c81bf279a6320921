"""What the timed benchmarks share: models, prompts, and how their command lines read lists."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import transformers

import langnorm.abacus

PACKAGES = ("langnorm", "torch", "transformers", "langchain-core", "langchain-huggingface")


def discard(_result: object) -> None:
    """Drop what a call returned: it is the time that counts."""


def prompts(number: int) -> list[str]:
    """Return sums to work out, each a little longer than the one before."""
    terms = [str(47 + 38 * i % 500) for i in range(number + 1)]
    return [f"What is {' + '.join(terms[: i + 2])}?" for i in range(number)]


def load_abacus() -> tuple[Any, Any]:
    """Return the bundled model and its tokenizer."""
    path = langnorm.abacus.path()
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(path)


def load_300m() -> tuple[Any, Any]:
    """Return a Qwen3 of 300 million random parameters in float32, with Abacus' tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(langnorm.abacus.path())
    config = transformers.Qwen3Config(
        vocab_size=1024,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=19,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        initializer_range=0.05,  # with the default greedy decoding settles on one token
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval(), tokenizer


@dataclass(frozen=True, slots=True)
class Setup:
    """How one model is timed.

    Attributes:
        load: Returns the model and its tokenizer.
        num_tokens: Tokens per sequence.
        repeats: Rounds of a comparison.
        fine_repeats: Rounds of a comparison whose bar is fine.
    """

    load: Callable[[], tuple[Any, Any]]
    num_tokens: int
    repeats: int
    fine_repeats: int


MODELS = {"abacus": Setup(load_abacus, 128, 16, fine_repeats=150), "300m": Setup(load_300m, 32, 8, fine_repeats=16)}


def listed(allowed: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a parser of comma-separated names."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(allowed):
            msg = f"{', '.join(sorted(unknown))} is not one of: {', '.join(allowed)}"
            raise argparse.ArgumentTypeError(msg)
        return names

    return parse

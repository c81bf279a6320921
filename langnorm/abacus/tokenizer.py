"""Abacus' tokenizer: byte-level BPE with Qwen2's pre-tokenizer, trained on the generator's own text."""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import langnorm.abacus
from langnorm.abacus.generator import corpus

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.abacus.generator.base import Example

VOCABULARY_SIZE = 1024

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# These stay in the decoded text, as with Qwen3: whoever reads the answer needs them.
MARKUP_TOKENS = (
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
)  # fmt: skip

# Qwen2's: words take one sign before them along, digits stand alone.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(num_examples: int = 40_000, seed: int = 0) -> PreTrainedTokenizerBase:
    """Return a tokenizer of `VOCABULARY_SIZE` entries, trained on `num_examples` conversations."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )
    from transformers import Qwen2Tokenizer

    bare = Tokenizer(models.BPE())
    bare.normalizer = normalizers.NFC()
    bare.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bare.decoder = decoders.ByteLevel()
    num_added = len(CONTROL_TOKENS) + len(MARKUP_TOKENS)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - num_added,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    template = (langnorm.abacus.path() / "chat_template.jinja").read_text()
    bare.train_from_iterator(_texts(template, num_examples, seed), trainer)
    bare.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS]
        + [AddedToken(token, special=False, normalized=False) for token in MARKUP_TOKENS]
    )
    return Qwen2Tokenizer(
        tokenizer_object=bare,
        unk_token=None,  # type: ignore[arg-type]  # every byte is known
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=langnorm.abacus.CONTEXT_LENGTH,
        chat_template=template,
    )


def render(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[list[int], list[int]]:
    """Return the token ids of the prompt and of the assistant's message, as the chat template renders them."""
    tools = list(example.tools) or None
    options: dict[str, Any] = {"tools": tools, "enable_thinking": example.enable_thinking, "tokenize": False}
    prompt = str(tokenizer.apply_chat_template(list(example.prompt), add_generation_prompt=True, **options))
    whole = str(tokenizer.apply_chat_template(list(example.messages), **options))
    if not whole.startswith(prompt):
        msg = f"The chat template renders the prompt differently once it is answered: {prompt!r}"
        raise ValueError(msg)
    prompt_ids, completion_ids = tokenizer([prompt, whole[len(prompt) :]])["input_ids"]
    return prompt_ids, completion_ids


def _texts(template: str, num_examples: int, seed: int) -> Iterator[str]:
    """Yield what the template renders, cut at the added tokens, which are not spelt by merges."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rng = random.Random(f"tokenizer/{seed}")
    added = re.compile("|".join(map(re.escape, CONTROL_TOKENS + MARKUP_TOKENS)))
    for _ in range(num_examples):
        example = corpus.draw(rng, "train")
        rendered: Any = render_jinja_template(
            conversations=[list(example.messages)], tools=list(example.tools) or None, chat_template=template
        )
        yield from filter(None, added.split(rendered[0][0]))


def main() -> None:
    """Train the tokenizer and write it beside the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=langnorm.abacus.path())
    parser.add_argument("--num-examples", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train(arguments.num_examples, arguments.seed).save_pretrained(arguments.out)


if __name__ == "__main__":
    main()

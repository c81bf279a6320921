"""Builds the vocabularies that grammars work on: every token with the bytes that it stands for."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langnorm.errors import MissingDependencyError, ModelError

if TYPE_CHECKING:
    from llguidance import LLTokenizer
    from transformers import PreTrainedTokenizerBase

_vocabularies: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, dict[Any, LLTokenizer]] = weakref.WeakKeyDictionary()


def get_vocabulary(
    tokenizer: PreTrainedTokenizerBase, num_tokens: int | None = None, end_ids: Sequence[int] = ()
) -> LLTokenizer:
    """Return the vocabulary of a tokenizer as grammars use it; it is built once and kept as long as the tokenizer.

    Args:
        tokenizer: The model's tokenizer.
        num_tokens: Number of scores that the model gives, if other than the tokenizer's number of tokens.
        end_ids: Tokens that end an answer, if other than the tokenizer's own.

    Raises:
        MissingDependencyError: llguidance is not installed.
        ModelError: The tokenizer has no Rust backend.
    """
    try:
        from llguidance.hf import from_tokenizer
    except ImportError as error:
        msg = (
            "Forced tool calls and structured output need the package `llguidance`. Install it with "
            '`pip install "langnorm[structured]"`.'
        )
        raise MissingDependencyError(msg) from error
    vocabularies = _vocabularies.setdefault(tokenizer, {})
    key = (num_tokens, tuple(end_ids))
    if key not in vocabularies:
        try:
            vocabularies[key] = from_tokenizer(tokenizer, n_vocab=num_tokens, eos_token=list(end_ids) or None)  # type: ignore[arg-type]
        except ValueError as error:
            msg = (
                f"The answers of this model cannot be constrained: {error}. Use a model with a fast tokenizer, or "
                '`tool_choice="auto"` and no response format.'
            )
            raise ModelError(msg) from error
    return vocabularies[key]

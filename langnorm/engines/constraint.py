"""Holds the rows of a batch to their grammars, each to its own, by leaving them only the tokens that lead on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import LogitsProcessor

from langnorm.engines.vocabulary import vocabulary_of
from langnorm.errors import ModelError
from langnorm.text import THINKING_TAGS

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.base import Grammar

# What brings an answer to its end soonest, in this order: the reasoning, a text, an object or a list, a value.
_CLOSING = (tuple(closing for _, closing in THINKING_TAGS), ('"',), ("}", "]"), (",",))


class RowConstraint(LogitsProcessor):
    """Masks what a row's grammar does not allow.

    An answer that comes near its last token is brought to its end: texts, lists and reasoning that a model goes on with
    are closed, so that what comes out is whole.

    Args:
        grammars: One per row, or None.
        limits: Most tokens to generate per row.
        tokenizer: The model's.
        end_ids: Tokens that end a sequence.
    """

    def __init__(
        self,
        grammars: Sequence[Grammar | None],
        limits: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
    ) -> None:
        self._grammars = {row: grammar for row, grammar in enumerate(grammars) if grammar}
        self._limits = limits
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._rows = list(self._grammars)
        self._matchers: list[LLMatcher] = []
        self._closing: list[list[int]] = []
        self._num_tokens = 0

    @property
    def is_needed(self) -> bool:
        """Whether any row has a grammar."""
        return bool(self._grammars)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (B, V) with those of tokens that are not allowed at minus infinity."""
        if not self._matchers:
            self._prepare(scores.size(-1))
        else:
            self._num_tokens += 1
            for matcher, token in zip(self._matchers, input_ids[self._rows, -1].tolist(), strict=True):
                if not matcher.is_stopped() and not matcher.consume_token(token):
                    msg = (
                        f"The answer could not be held to its grammar: {matcher.get_error() or 'it is too complex'}. "
                        "Simplify the schema."
                    )
                    raise ModelError(msg)
        allowed = np.stack([self._allowed(*pair) for pair in zip(self._rows, self._matchers, strict=True)])
        mask = torch.from_numpy(allowed).to(scores.device)  # (R, V)
        scores = scores.clone()
        scores[self._rows] = scores[self._rows].masked_fill(~mask, -torch.inf)
        return scores

    def _prepare(self, num_scores: int) -> None:
        from llguidance import LLMatcher

        vocabulary = vocabulary_of(self._tokenizer, num_scores, self._end_ids)
        self._num_scores = num_scores
        made = {
            grammar.lark: LLMatcher(vocabulary, LLMatcher.grammar_from_lark(grammar.lark))
            for grammar in self._grammars.values()
        }
        self._matchers = [made[grammar.lark].deep_copy() for grammar in self._grammars.values()]
        for texts in _CLOSING:
            ids = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            self._closing.append([found[0] for found in ids if len(found) == 1])

    def _allowed(self, row: int, matcher: LLMatcher) -> np.ndarray:
        """Return which tokens a row may go on with (V,)."""
        if matcher.is_stopped():
            return np.ones(self._num_scores, dtype=bool)
        words = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        found = np.unpackbits(words, bitorder="little")[: self._num_scores].astype(bool)
        found = np.pad(found, (0, self._num_scores - len(found)))
        if self._limits[row] - self._num_tokens > self._grammars[row].least_tokens:
            return found
        if matcher.is_accepting():
            ends = np.zeros_like(found)
            ends[list(self._end_ids)] = found[list(self._end_ids)]
            return ends if ends.any() else found
        for ids in self._closing:
            if chosen := [i for i in ids if found[i]]:
                found = np.zeros_like(found)
                found[chosen] = True
                break
        return found

"""Holds the rows of a batch to their grammars, each to its own, by leaving them only the tokens that lead on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import LogitsProcessor

from langnorm.engines.vocabulary import get_vocabulary
from langnorm.errors import ModelError
from langnorm.text.marks import THINKING_TAGS

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.requests import Grammar

# What brings an answer to its end soonest, in this order: the reasoning, a text, an object or a list, a value.
_CLOSING = (tuple(closing for _, closing in THINKING_TAGS), ('"',), ("}", "]"), (",",))


class GrammarMask(LogitsProcessor):
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
        self._end_ids = list(end_ids)
        self._rows = list(self._grammars)
        self._matchers: list[LLMatcher | None] = []  # None for a row that is over
        self._allowed: Any = None  # of the step before (R, V)
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
            for place, token in enumerate(input_ids[self._rows, -1].tolist()):
                self._consume(place, token)
        self._allowed = np.stack([self._allowed_of(*pair) for pair in zip(self._rows, self._matchers, strict=True)])
        mask = torch.from_numpy(self._allowed).to(scores.device)  # (R, V)
        scores = scores.clone()
        scores[self._rows] = scores[self._rows].masked_fill(~mask, -torch.inf)
        return scores

    def _prepare(self, num_scores: int) -> None:
        from llguidance import LLMatcher

        vocabulary = get_vocabulary(self._tokenizer, num_scores, self._end_ids)
        self._num_scores = num_scores
        self._ends = np.zeros(num_scores, dtype=bool)
        self._ends[self._end_ids] = True
        made = {
            grammar.lark: LLMatcher(vocabulary, LLMatcher.grammar_from_lark(grammar.lark))
            for grammar in self._grammars.values()
        }
        self._matchers = [made[grammar.lark].deep_copy() for grammar in self._grammars.values()]
        for texts in _CLOSING:
            ids = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            self._closing.append([found[0] for found in ids if len(found) == 1])

    def _consume(self, place: int, token: int) -> None:
        """Take note of the token that a row went on with."""
        matcher = self._matchers[place]
        if matcher is None:
            return
        if token in self._end_ids or not self._allowed[place, token]:
            # The row is over; what is not allowed is the padding after a stop text, or of a row that was cancelled.
            self._matchers[place] = None
        elif not matcher.consume_token(token):
            msg = f"The answer could not be held to its grammar: {matcher.get_error()} Simplify the schema."
            raise ModelError(msg)

    def _allowed_of(self, row: int, matcher: LLMatcher | None) -> np.ndarray:
        """Return which tokens a row may go on with (V,)."""
        if matcher is None:
            return np.ones(self._num_scores, dtype=bool)
        if matcher.is_stopped():  # nothing can follow
            return self._ends
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        found = np.zeros(self._num_scores, dtype=bool)
        found[: len(bits)] = bits[: self._num_scores]
        if self._limits[row] - self._num_tokens > self._grammars[row].least_tokens:
            return found
        if matcher.is_accepting():
            return self._ends
        for ids in self._closing:
            if chosen := [i for i in ids if found[i]]:
                found = np.zeros_like(found)
                found[chosen] = True
                break
        return found

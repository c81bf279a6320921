"""Constrains the sequences of a batch, each to its own grammar, by masking the tokens that it does not allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import LogitsProcessor

from langnorm.engines.reasoning_budget import ReasoningBudget
from langnorm.engines.vocabulary import get_vocabulary
from langnorm.errors import ModelError

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.requests import Grammar


class GrammarMask(LogitsProcessor):
    """Masks the tokens that the grammar of a sequence does not allow.

    Reasoning before an answer is brought to its end in time. The answer is not: one that reaches its last token before
    its end stays broken off, because whatever would be put in its place is not the model's.

    Args:
        grammars: One per sequence, or None.
        limits: Most tokens to generate per sequence.
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
        self._grammars = {index: grammar for index, grammar in enumerate(grammars) if grammar}
        self._limits = limits
        self._tokenizer = tokenizer
        self._end_ids = list(end_ids)
        self._constrained = list(self._grammars)  # indices of the R sequences that have a grammar
        self._matchers: list[LLMatcher | None] = []  # (R,); None for a sequence that is over
        self._budgets: list[ReasoningBudget] = []  # (R,)
        self._allowed: Any = None  # tokens that were allowed in the step before (R, V)
        self._num_tokens = 0

    @property
    def is_needed(self) -> bool:
        """Whether any sequence has a grammar."""
        return bool(self._grammars)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (B, V) with those of tokens that are not allowed at minus infinity."""
        if not self._matchers:
            self._prepare(scores.size(-1))
        else:
            self._num_tokens += 1
            for position, token in enumerate(input_ids[self._constrained, -1].tolist()):
                self._consume(position, token)
        self._allowed = np.stack([self._compute_allowed(position) for position in range(len(self._matchers))])
        mask = torch.from_numpy(self._allowed).to(scores.device)  # (R, V)
        scores = scores.clone()
        scores[self._constrained] = scores[self._constrained].masked_fill(~mask, -torch.inf)
        return scores

    def _prepare(self, num_scores: int) -> None:
        from llguidance import LLMatcher

        vocabulary = get_vocabulary(self._tokenizer, num_scores, self._end_ids)
        self._num_scores = num_scores
        self._end_mask = np.zeros(num_scores, dtype=bool)
        self._end_mask[self._end_ids] = True
        matchers = {
            grammar.lark: LLMatcher(vocabulary, LLMatcher.grammar_from_lark(grammar.lark))
            for grammar in self._grammars.values()
        }
        self._matchers = [matchers[grammar.lark].deep_copy() for grammar in self._grammars.values()]
        self._budgets = [
            ReasoningBudget(grammar, self._limits[index], vocabulary) for index, grammar in self._grammars.items()
        ]

    def _consume(self, position: int, token: int) -> None:
        """Advance the matcher of a sequence by the token that was generated, given its position in `_constrained`."""
        matcher = self._matchers[position]
        if matcher is None:
            return
        if token in self._end_ids or not self._allowed[position, token]:
            # The sequence is over: a token that is not allowed is padding after a stop text or a cancellation.
            self._matchers[position] = None
            return
        matcher.consume_token(token)
        _check(matcher)
        self._budgets[position].add(token)

    def _compute_allowed(self, position: int) -> np.ndarray:
        """Return which tokens a sequence may go on with (V,), given its position in `_constrained`."""
        matcher = self._matchers[position]
        if matcher is None:
            return np.ones(self._num_scores, dtype=bool)
        if matcher.is_stopped():  # nothing can follow
            return self._end_mask
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        _check(matcher)
        allowed = np.zeros(self._num_scores, dtype=bool)
        allowed[: len(bits)] = bits[: self._num_scores]
        token = self._budgets[position].next_token(self._limits[self._constrained[position]] - self._num_tokens)
        if token is not None and allowed[token]:  # which it is not amid a character
            allowed = np.zeros_like(allowed)
            allowed[token] = True
        return allowed


def _check(matcher: LLMatcher) -> None:
    """Raise `ModelError` if the library could not go on."""
    if matcher.is_error():
        msg = f"The answer could not be held to its grammar: {matcher.get_error()} Simplify the schema."
        raise ModelError(msg)

"""Ends the reasoning before an answer that is held to a grammar, while there is still room for the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.text.marks import partial_mark_length

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from langnorm.engines.requests import Grammar

_SHARE = 4  # one token in so many is kept for the answer
_MOST_KEPT = 1024  # beyond the shortest answer
_NUM_UNFINISHED = 3  # tokens that a character which has begun may take to its end


class ReasoningBudget:
    """Follows one sequence, and says which token it has to go on with for its reasoning to end in time.

    Reasoning is ended where what is left is the shortest answer and a quarter of all tokens, at most 1,024 of them. An
    answer itself is never ended: half of a number is another number.

    Args:
        grammar: What the answer is held to.
        limit: Most tokens of reasoning and answer together.
        vocabulary: The model's tokens.
    """

    def __init__(self, grammar: Grammar, limit: int, vocabulary: LLTokenizer) -> None:
        marks = grammar.reasoning
        self._vocabulary = vocabulary
        self._opening, self._closing = (marks.opening, marks.closing) if marks else ("", "")
        self._is_over = marks is None
        self._is_open = marks is not None and marks.is_open
        self._text = b""  # what may yet be part of a mark
        closing_ids = vocabulary.tokenize_str(self._closing)
        # Where a mark is a token that no text spells, the grammar knows it by that token alone.
        is_special = len(closing_ids) == 1 and vocabulary.is_special_token(closing_ids[0])
        self._closing_id = closing_ids[0] if is_special else None
        num_closing = len(closing_ids)
        self._reserved = grammar.least_tokens + num_closing + _NUM_UNFINISHED + min(limit // _SHARE, _MOST_KEPT)

    def add(self, token: int) -> None:
        """Follow the sequence by a token."""
        if self._is_over:
            return
        self._text += self._vocabulary.decode_bytes([token])
        if not self._is_open:
            opening = self._opening.encode()
            if len(self._text) < len(opening) and opening.startswith(self._text):
                return
            self._is_open = self._text.startswith(opening)
            self._is_over = not self._is_open
            self._text = self._text[len(opening) :]
        closing = self._closing.encode()
        if token == self._closing_id or (self._closing_id is None and closing in self._text):
            self._is_over = True
        self._text = self._text[-len(closing) :]

    def next_token(self, num_left: int) -> int | None:
        """Return the token that has to follow, or None where any may.

        Args:
            num_left: Tokens that may still be generated, this one among them.
        """
        if self._is_over or not self._is_open or num_left > self._reserved:
            return None
        if self._closing_id is not None:
            return self._closing_id
        closing = self._closing.encode()
        # A character for each byte: tokens may end amid a character.
        written = partial_mark_length(self._text.decode("latin-1"), closing.decode("latin-1"))
        return self._vocabulary.tokenize_bytes(closing[written:])[0]

"""Reasoning told from answer while the text arrives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from langnorm.text.marks import THINKING_TAGS, PieceBuffer, partial_mark_length, rstrip_pieces

Part = Literal["reasoning", "answer", "tool_call"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Some visible text of one token.

    Attributes:
        part: Whether it is reasoning, answer or the call of a tool.
        text: The text, never empty.
        token: Index of the generated token that it came with.
        span: For tool calls, which of the marked spans it belongs to, from 0.
    """

    part: Part
    text: str
    token: int
    span: int = 0


class ReasoningSplitter:
    """Tells reasoning from answer while the text arrives.

    The marks themselves, and white space beside them, belong to neither. White space at an end is held back until
    text follows it, so that what was streamed is what `invoke` returns.

    Args:
        is_thinking: Whether the prompt already opened the reasoning.
    """

    def __init__(self, *, is_thinking: bool = False) -> None:
        self._part: Part = "reasoning" if is_thinking else "answer"
        self._is_part_empty = True
        self._undecided = PieceBuffer()  # white space, or the beginning of a mark
        self._has_thought = is_thinking

    def feed(self, token: int, piece: str) -> Iterator[Segment]:
        """Yield what can be shown now that `piece` has come with generated token number `token`."""
        if not piece:
            return
        self._undecided.add(token, piece)
        while (at_tag := self._find_tag()) is not None:
            start, tag = at_tag
            before = self._undecided.take(start)
            self._undecided.take(len(tag))
            yield from self._show(rstrip_pieces(before))
            self._part = "answer" if self._part == "reasoning" else "reasoning"
            self._has_thought = True
            self._is_part_empty = True
        yield from self._show(self._undecided.take(len(self._undecided.text) - self._num_undecided()))

    def finish(self) -> Iterator[Segment]:
        """Yield what was held back and turned out to be text; white space at the very end stays in an answer."""
        rest = self._undecided.take_all()
        yield from self._show(rstrip_pieces(rest) if self._part == "reasoning" else rest)

    def _show(self, pieces: list[tuple[int, str]]) -> Iterator[Segment]:
        for token, piece in pieces:
            # Only beside a mark is white space layout; an answer without reasoning is left as it is.
            is_layout = self._is_part_empty and (self._part == "reasoning" or self._has_thought)
            text = piece.lstrip() if is_layout else piece
            if text:
                self._is_part_empty = False
                yield Segment(self._part, text, token)

    def _find_tag(self) -> tuple[int, str] | None:
        if self._part == "answer" and (self._has_thought or not self._is_part_empty):
            return None  # reasoning comes first and once: later marks are text
        side = 1 if self._part == "reasoning" else 0
        text = self._undecided.text
        tags = [(at, pair[side]) for pair in THINKING_TAGS if (at := text.find(pair[side])) >= 0]
        if not tags:
            return None
        at, tag = min(tags)
        return None if self._part == "answer" and text[:at].strip() else (at, tag)

    def _num_undecided(self) -> int:
        """Return how many characters at the end may yet be white space before a mark, or part of a mark."""
        text = self._undecided.text
        if self._part == "answer" and (self._has_thought or not self._is_part_empty):
            return 0
        side = 1 if self._part == "reasoning" else 0
        begun = max(partial_mark_length(text, pair[side]) for pair in THINKING_TAGS)
        rest = text[: len(text) - begun]
        blank = len(rest) - len(rest.rstrip())
        if self._part == "answer" and rest.strip():
            return 0
        return begun + blank

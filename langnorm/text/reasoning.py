"""Reasoning told from answer while the text arrives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from langnorm.text.marks import THINKING_TAGS, FoundMark, Letter, MarkFinder

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
    text follows it, so that what was streamed is what `invoke` returns. It goes letter by letter: what it says does not
    depend on how the text was cut into pieces.

    Args:
        is_thinking: Whether the prompt already opened the reasoning.
    """

    def __init__(self, *, is_thinking: bool = False) -> None:
        self._part: Part = "reasoning" if is_thinking else "answer"
        self._has_thought = is_thinking
        self._is_part_empty = True
        self._blank: list[Letter] = []  # white space that may stand before a mark
        # None once no mark can come: reasoning comes first and once, later marks are text.
        self._finder: MarkFinder | None = MarkFinder([pair[is_thinking] for pair in THINKING_TAGS])

    def feed_letter(self, token: int, letter: str) -> Iterator[Segment]:
        """Yield what can be shown now that one character has come, in segments of one character."""
        if self._finder is None:
            yield from self._show([(token, letter)])
            return
        for item in list(self._finder.feed(token, letter)):
            if isinstance(item, FoundMark):
                self._turn(item.text)
            elif item[1].isspace():
                self._blank.append(item)
            else:
                yield from self._show([*self._take_blank(), item])
        if self._finder and self._part == "answer" and not self._is_part_empty:
            rest, self._finder = self._take_blank() + self._finder.take_held(), None
            yield from self._show(rest)

    def finish_letters(self) -> Iterator[Segment]:
        """Yield what was held back and turned out to be text; white space at the very end stays in an answer."""
        held = self._finder.take_held() if self._finder else []
        blank = self._take_blank()
        yield from self._show(blank + held if held or self._part == "answer" else [])

    def _turn(self, mark: str) -> None:
        """Go on with the other part."""
        if self._part == "answer":
            self._part = "reasoning"
            self._finder = MarkFinder([dict(THINKING_TAGS)[mark]])
        else:
            self._part, self._finder = "answer", None
        self._has_thought, self._is_part_empty, self._blank = True, True, []

    def _take_blank(self) -> list[Letter]:
        blank, self._blank = self._blank, []
        return blank

    def _show(self, letters: list[Letter]) -> Iterator[Segment]:
        for token, letter in letters:
            # Only beside a mark is white space layout; an answer without reasoning is left as it is.
            is_layout = self._is_part_empty and (self._part == "reasoning" or self._has_thought)
            if not (is_layout and letter.isspace()):
                self._is_part_empty = False
                yield Segment(self._part, letter, token)

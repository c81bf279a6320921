"""The marks that tell reasoning and tool calls from the answer, and what finds them in text that still arrives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Opening and closing marks of reasoning, by model family.
THINKING_TAGS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
)

# Parts of the marks of tools, in lower case: the marks themselves (`<tool_call>`, `[TOOL_CALLS]`, `<|python_tag|>`,
# `<start_function_call>`) are too many to list, and each new family brings others.
_TOOL_MARKUP = ("tool", "function", "python_tag", "[args]", "[call_id]", "_action|>")
_OTHER_MARKUP = ("<escape>", '<|"|>', "<|channel>", "<channel|>")

Letter = tuple[int, str]
"""A character, after the index of the generated token that it came with."""


def is_markup(token: str) -> bool:
    """Return whether a token marks reasoning or tool calls."""
    is_tag = token in _OTHER_MARKUP or any(token in pair for pair in THINKING_TAGS)
    return is_tag or any(part in token.lower() for part in _TOOL_MARKUP)


def is_reasoning_open(text: str) -> bool:
    """Return whether the last opening mark of reasoning in a text has no closing one after it."""
    at, closing = max((text.rfind(opening), closing) for opening, closing in THINKING_TAGS)
    return at >= 0 and closing not in text[at:]


def partial_mark_length(text: str, mark: str) -> int:
    """Return the length of the longest proper beginning of `mark` that `text` ends with."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)


@dataclass(frozen=True, slots=True)
class FoundMark:
    """A mark that has come.

    Attributes:
        text: The mark.
        letters: Its characters.
    """

    text: str
    letters: list[Letter]


class MarkFinder:
    """Finds marks in text that arrives letter by letter.

    It holds back no more than the beginning of a mark, so each letter costs the same however long the text is.

    Args:
        marks: None of them begins with another.
    """

    def __init__(self, marks: Sequence[str]) -> None:
        self._marks = marks
        self._firsts = {mark[0] for mark in marks}
        self.held: list[Letter] = []

    def feed(self, token: int, letter: str) -> Iterator[Letter | FoundMark]:
        """Yield the letters that are certain not to be a mark, and a mark when it is whole."""
        if not self.held and letter not in self._firsts:
            yield token, letter
            return
        self.held.append((token, letter))
        text = "".join(letter for _, letter in self.held)
        if text in self._marks:
            yield FoundMark(text, self.take_held())
        elif not any(mark.startswith(text) for mark in self._marks):
            first, *rest = self.take_held()
            yield first
            for item in rest:
                yield from self.feed(*item)

    def take_held(self) -> list[Letter]:
        """Remove and return what was held back."""
        held, self.held = self.held, []
        return held

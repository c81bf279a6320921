"""Where one reasoning step ends and the next begins, in text and in tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from langnorm.errors import OptionError, closest
from langnorm.text import Part, Segment

Kind = Literal["reasoning", "answer", "tool_call"]
Splitter = Callable[[str], Sequence[tuple[int, int]]]
"""Returns the [start, end) offsets of the steps of a text that is not blank, ascending and without overlap."""

# A full stop ends a sentence only before white space, so 3.5 stays whole; CJK full stops need none.
_SENTENCE_ENDS = re.compile(r"\n+\s*|(?<=[.!?…])[ \t]+(?=\S)|(?<=[。！？])[ \t]*(?=\S)")
_LINE_ENDS = re.compile(r"\n+\s*")
_PARAGRAPH_ENDS = re.compile(r"\n[ \t]*\n\s*")

# A call of a tool in an answer, in the forms of Qwen and Hermes, of Mistral, and of Llama 3. One that was cut off
# reaches to the end.
_TOOL_CALL = re.compile(
    r"<tool_call>.*?(?:</tool_call>|\Z)|\[TOOL_CALLS\].*?(?=\[TOOL_CALLS\]|\Z)|<\|python_tag\|>.*", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class StepSpan:
    """A step before anything is known about its norms.

    Attributes:
        kind: Whether it is reasoning, answer, or the call of a tool in the answer.
        start: Index of its first generated token.
        end: One past the index of its last token.
        text_start: Offset of its first character in the text of the reasoning or of the answer.
        text_end: One past the offset of its last character there.
    """

    kind: Kind
    start: int
    end: int
    text_start: int
    text_end: int


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return the offsets of the lines of `text` and of the sentences in them, without white space around them."""
    return _between(_SENTENCE_ENDS, text)


def split_lines(text: str) -> list[tuple[int, int]]:
    """Return the offsets of the lines of `text` that are not blank, without white space around them."""
    return _between(_LINE_ENDS, text)


def split_paragraphs(text: str) -> list[tuple[int, int]]:
    """Return the offsets of what stands between blank lines, without white space around it."""
    return _between(_PARAGRAPH_ENDS, text)


SPLITTERS: dict[str, Splitter] = {
    "sentence": split_sentences,
    "line": split_lines,
    "paragraph": split_paragraphs,
}
"""Splitters by the names that the option `step_splitter` takes."""


def get_splitter(splitter: str | Splitter) -> Splitter:
    """Return the splitter of this name, or the function itself.

    Raises:
        OptionError: There is none of this name.
    """
    if callable(splitter):
        return splitter
    if splitter not in SPLITTERS:
        allowed = ", ".join(f'"{name}"' for name in SPLITTERS)
        hint = closest(str(splitter), SPLITTERS)
        msg = f"`step_splitter={splitter!r}` is not allowed. Use {allowed} or a function of a text.{hint}"
        raise OptionError(msg)
    return SPLITTERS[splitter]


def split_steps(segments: Sequence[Segment], splitter: Splitter = split_sentences) -> list[StepSpan]:
    """Return the steps of a sequence: first those of its reasoning, then those of its answer.

    Every token belongs to at most one step. A token that holds the end of one step and the beginning of the next
    belongs to the first of them; a step that is left without a token is part of the one before.

    Args:
        segments: The visible text with its tokens.
        splitter: Splits the reasoning, and the answer around its tool calls; each call is one step.

    Raises:
        OptionError: A splitter of the user's own returned what cannot be the steps of its text.
    """
    steps: list[StepSpan] = []
    parts: tuple[Part, ...] = ("reasoning", "answer")
    for part in parts:
        of_part = [s for s in segments if s.part == part]
        text = "".join(s.text for s in of_part)
        token_of = [s.token for s in of_part for _ in s.text]  # by character
        found: list[StepSpan] = []
        for kind, start, end in _kinds(part, text, splitter):
            first = max(token_of[start], found[-1].end if found else 0)
            last = token_of[end - 1]
            if last < first:
                found[-1] = replace(found[-1], text_end=end)
            else:
                found.append(StepSpan(kind, first, last + 1, start, end))
        steps += _joined(found)
    return steps


def _kinds(part: Part, text: str, splitter: Splitter) -> Iterator[tuple[Kind, int, int]]:
    """Yield the steps of one part's text with their kinds."""
    calls = [] if part == "reasoning" else [match.span() for match in _TOOL_CALL.finditer(text)]
    before = 0
    for call_start, call_end in (*calls, (len(text), len(text))):
        yield from ((part, before + start, before + end) for start, end in _split(text[before:call_start], splitter))
        if call_end > call_start:
            yield "tool_call", call_start, call_start + len(text[call_start:call_end].rstrip())
        before = call_end


def _split(text: str, splitter: Splitter) -> Sequence[tuple[int, int]]:
    if not text.strip():
        return []
    spans = [(int(start), int(end)) for start, end in splitter(text)]
    offsets = [offset for span in spans for offset in span]
    is_ascending = all(a <= b for a, b in pairwise(offsets)) and all(start < end for start, end in spans)
    if not is_ascending or (offsets and not 0 <= offsets[0] <= offsets[-1] <= len(text)):
        msg = (
            f"The step splitter returned {spans} for a text of {len(text)} characters. "
            "Return ascending [start, end) offsets inside the text, without overlap."
        )
        raise OptionError(msg)
    return spans


def _between(ends: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    cuts = [0, *(offset for match in ends.finditer(text) for offset in match.span()), len(text)]
    trimmed = []
    for start, end in zip(cuts[::2], cuts[1::2], strict=True):
        piece = text[start:end]
        start += len(piece) - len(piece.lstrip())
        if piece.strip():
            trimmed.append((start, start + len(piece.strip())))
    return trimmed


def _joined(steps: list[StepSpan]) -> list[StepSpan]:
    """Return the steps of one part with the tokens between two of them (a line break) given to the first."""
    if not steps:
        return []
    ends = [after.start for _, after in pairwise(steps)] + [steps[-1].end]
    return [replace(step, end=end) for step, end in zip(steps, ends, strict=True)]

"""Where one reasoning step ends and the next begins, in text and in tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from langnorm.errors import OptionError, closest
from langnorm.text.reasoning import Part, Segment

Splitter = Callable[[str], Sequence[tuple[int, int]]]
"""Returns the [start, end) offsets of the steps of a text that is not blank, ascending and without overlap."""

# A full stop ends a sentence only before white space, so 3.5 stays whole; CJK full stops need none.
_SENTENCE_ENDS = re.compile(r"\n+\s*|(?<=[.!?…])[ \t]+(?=\S)|(?<=[。！？])[ \t]*(?=\S)")
_LINE_ENDS = re.compile(r"\n+\s*")
_PARAGRAPH_ENDS = re.compile(r"\n[ \t]*\n\s*")


@dataclass(frozen=True, slots=True)
class StepSpan:
    """A step before anything is known about its norms.

    Attributes:
        kind: Whether it is reasoning, answer, or the call of a tool.
        start: Index of its first generated token.
        end: One past the index of its last token.
        text_start: Offset of its first character in the text of the reasoning, of the answer, or of all calls.
        text_end: One past the offset of its last character there.
    """

    kind: Part
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
    """Return the steps of a sequence: first those of its reasoning, then those of its answer and its tool calls.

    Every token belongs to at most one step. A token that holds the end of one step and the beginning of the next
    belongs to the first of them; a step that is left without a token is part of the one before.

    Args:
        segments: The visible text with its tokens.
        splitter: Splits the reasoning and the answer; what stands between the marks of a call is one step.

    Raises:
        OptionError: A splitter of the user's own returned what cannot be the steps of its text.
    """
    by_part: dict[Part, list[Segment]] = {"reasoning": [], "answer": [], "tool_call": []}
    for segment in segments:
        by_part[segment.part].append(segment)
    reasoning = _steps_of("reasoning", by_part["reasoning"], splitter)
    answer = _steps_of("answer", by_part["answer"], splitter)
    calls = _steps_of("tool_call", by_part["tool_call"], lambda _: _spans(by_part["tool_call"]))
    return _joined(reasoning) + _joined(_without_overlap(sorted(answer + calls, key=lambda step: step.start)))


def _steps_of(part: Part, segments: Sequence[Segment], splitter: Splitter) -> list[StepSpan]:
    """Return the steps of one part."""
    text = "".join(segment.text for segment in segments)
    token_of = [segment.token for segment in segments for _ in segment.text]  # by character
    found: list[StepSpan] = []
    for start, end in _split(text, splitter):
        first = max(token_of[start], found[-1].end if found else 0)
        last = token_of[end - 1]
        if last < first:
            found[-1] = replace(found[-1], text_end=end)
        else:
            found.append(StepSpan(part, first, last + 1, start, end))
    return found


def _spans(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """Return the offsets of the marked spans in the text of all calls, without white space around them."""
    spans: list[tuple[int, int]] = []
    start = 0
    for _, group in groupby(segments, key=lambda segment: segment.span):
        text = "".join(segment.text for segment in group)
        if text.strip():
            spans.append((start + len(text) - len(text.lstrip()), start + len(text.rstrip())))
        start += len(text)
    return spans


def _without_overlap(steps: list[StepSpan]) -> list[StepSpan]:
    """Return steps of several parts with a token that two of them share given to the first."""
    found: list[StepSpan] = []
    for step in steps:
        first = max(step.start, found[-1].end if found else 0)
        if first < step.end:
            found.append(step if first == step.start else replace(step, start=first))
    return found


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
    """Return steps that follow each other with the tokens between two of them (a line break) given to the first."""
    if not steps:
        return []
    ends = [after.start for _, after in pairwise(steps)] + [steps[-1].end]
    return [
        step if end == step.end else replace(step, end=end)  # most are as they should be, and copies cost
        for step, end in zip(steps, ends, strict=True)
    ]

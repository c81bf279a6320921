"""Where one reasoning step ends and the next begins, in text and in tokens."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from operator import index

from langnorm.checks import brief, refuse
from langnorm.errors import OptionError, closest
from langnorm.text.markdown import split_paragraphs, split_sentences
from langnorm.text.reasoning import Part, Segment

Splitter = Callable[[str], Sequence[tuple[int, int]]]
"""Returns the [start, end) offsets of the steps of a text that is not blank, ascending and without overlap."""

_LINE = re.compile(r"[^\r\n]+")


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


def split_lines(text: str) -> list[tuple[int, int]]:
    """Return the offsets of the lines of `text` that are not blank, without white space around them."""
    spans = []
    for match in _LINE.finditer(text):
        line = match[0]
        if line.strip():
            start = match.start() + len(line) - len(line.lstrip())
            spans.append((start, start + len(line.strip())))
    return spans


SPLITTERS: dict[str, Splitter] = {
    "sentence": split_sentences,
    "line": split_lines,
    "paragraph": split_paragraphs,
}
"""Splitters by the names that the option `step_splitter` takes."""


def get_splitter(splitter: str | Splitter) -> Splitter:
    """Return the splitter of a name, or the function that was given.

    Args:
        splitter: `"sentence"`, `"line"`, `"paragraph"`, or a function of a text; see `Splitter`.

    Raises:
        OptionError: It is something else.
    """
    if callable(splitter):
        return splitter
    if not isinstance(splitter, str) or splitter not in SPLITTERS:
        allowed = ", ".join(f'"{name}"' for name in SPLITTERS)
        hint = closest(brief(splitter), SPLITTERS)
        refuse("step_splitter", splitter, f"{allowed} or a function of a text", hint=hint)
    return SPLITTERS[splitter]


def split_steps(segments: Sequence[Segment], splitter: Splitter = split_sentences) -> list[StepSpan]:
    """Return the steps of a sequence, in the order of their tokens.

    Every token belongs to at most one step. A token that holds the end of one step and the beginning of the next
    belongs to the first of them; a step that is left without a token is part of the one before. No step goes on behind
    another part of the sequence, such as a tool call in the middle of a paragraph.

    Args:
        segments: The visible text with its tokens.
        splitter: Splits the reasoning and the answer; what stands between the marks of a call is one step.

    Raises:
        OptionError: A splitter of the user's own returned what cannot be the steps of its text.
    """
    by_part: dict[Part, list[Segment]] = {"reasoning": [], "answer": [], "tool_call": []}
    lengths = dict.fromkeys(by_part, 0)
    interruptions: dict[Part, list[int]] = {part: [] for part in by_part}  # offsets where another part stood between
    for part, group in groupby(segments, key=lambda segment: segment.part):
        interruptions[part].append(lengths[part])
        for segment in group:
            by_part[part].append(segment)
            lengths[part] += len(segment.text)
    steps = [
        *_split_part("reasoning", by_part["reasoning"], splitter, interruptions["reasoning"]),
        *_split_part("answer", by_part["answer"], splitter, interruptions["answer"]),
        *_split_part("tool_call", by_part["tool_call"], lambda _: _call_spans(by_part["tool_call"])),
    ]
    return _fill_gaps(_without_shared_tokens(sorted(steps, key=lambda step: step.start)))


def _split_part(
    part: Part, segments: Sequence[Segment], splitter: Splitter, interruptions: Sequence[int] = ()
) -> list[StepSpan]:
    """Return the steps of one part."""
    text = "".join(segment.text for segment in segments)
    token_of = [segment.token for segment in segments for _ in segment.text]  # by character
    steps: list[StepSpan] = []
    for start, end in _interrupted(_apply(splitter, text), text, interruptions):
        first = max(token_of[start], steps[-1].end if steps else 0)
        last = token_of[end - 1]
        if last < first:
            steps[-1] = replace(steps[-1], text_end=end)
        else:
            steps.append(StepSpan(part, first, last + 1, start, end))
    return steps


def _interrupted(spans: Sequence[tuple[int, int]], text: str, offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield spans of a text, those with an offset inside in pieces, without white space around these."""
    for start, end in spans:
        inside = offsets[bisect_right(offsets, start) : bisect_left(offsets, end)]
        if not inside:
            yield start, end
            continue
        for first, last in pairwise((start, *inside, end)):
            if (piece := text[first:last]).strip():
                yield last - len(piece.lstrip()), first + len(piece.rstrip())


def _call_spans(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """Return the offsets of each marked span in the text of all calls, without white space around it."""
    spans: list[tuple[int, int]] = []
    start = 0
    for _, group in groupby(segments, key=lambda segment: segment.span):
        text = "".join(segment.text for segment in group)
        if text.strip():
            spans.append((start + len(text) - len(text.lstrip()), start + len(text.rstrip())))
        start += len(text)
    return spans


def _without_shared_tokens(steps: list[StepSpan]) -> list[StepSpan]:
    """Return steps, in their order, where a token that two of them share belongs to the first only."""
    disjoint: list[StepSpan] = []
    for step in steps:
        first = max(step.start, disjoint[-1].end if disjoint else 0)
        if first < step.end:
            disjoint.append(step if first == step.start else replace(step, start=first))
    return disjoint


def _apply(splitter: Splitter, text: str) -> list[tuple[int, int]]:
    """Return what a splitter makes of a text, checked: it may be the user's own.

    Raises:
        OptionError: These are not ascending offsets inside the text.
    """
    if not text.strip():
        return []
    result = splitter(text)
    try:
        spans = [(index(start), index(end)) for start, end in result]
    except (TypeError, ValueError) as error:
        raise OptionError(_wrong_spans(result, text)) from error
    offsets = [offset for span in spans for offset in span]
    is_ascending = all(a <= b for a, b in pairwise(offsets)) and all(start < end for start, end in spans)
    if not is_ascending or (offsets and not 0 <= offsets[0] <= offsets[-1] <= len(text)):
        raise OptionError(_wrong_spans(spans, text))
    return spans


def _wrong_spans(spans: object, text: str) -> str:
    return (
        f"The step splitter returned `{spans!r}` for a text of {len(text)} characters. "
        "Return ascending [start, end) offsets inside the text, without overlap."
    )


def _fill_gaps(steps: list[StepSpan]) -> list[StepSpan]:
    """Return steps, in their order, where tokens between two of them (a line break) belong to the first.

    Those between reasoning and what is none belong to neither: they are marks.
    """
    if not steps:
        return []
    ends = [
        step.end if (step.kind == "reasoning") != (after.kind == "reasoning") else after.start
        for step, after in pairwise(steps)
    ] + [steps[-1].end]
    return [
        step if end == step.end else replace(step, end=end)  # most are as they should be, and copies cost
        for step, end in zip(steps, ends, strict=True)
    ]

"""Where one reasoning step ends and the next begins, in text and in tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from langnorm.text import Part, Segment

# A line, or a sentence in it. A full stop ends a sentence only before white space, so 3.5 stays whole; CJK
# full stops need none.
_BOUNDARY = re.compile(r"\n+\s*|(?<=[.!?…])[ \t]+(?=\S)|(?<=[。！？])[ \t]*(?=\S)")


@dataclass(frozen=True, slots=True)
class StepSpan:
    """A step before anything is known about its norms.

    Attributes:
        part: Whether it is in the reasoning or in the answer.
        start: Index of its first generated token.
        end: One past the index of its last token.
        text_start: Offset of its first character in the text of its part.
        text_end: One past the offset of its last character there.
    """

    part: Part
    start: int
    end: int
    text_start: int
    text_end: int


def split_text(text: str) -> list[tuple[int, int]]:
    """Return the [start, end) offsets of the lines and sentences of `text`, without white space around them."""
    cuts = [0, *(offset for match in _BOUNDARY.finditer(text) for offset in match.span()), len(text)]
    spans = [(start, end) for start, end in zip(cuts[::2], cuts[1::2], strict=True)]
    trimmed = []
    for start, end in spans:
        piece = text[start:end]
        start += len(piece) - len(piece.lstrip())
        if piece.strip():
            trimmed.append((start, start + len(piece.strip())))
    return trimmed


def split_steps(segments: Sequence[Segment]) -> list[StepSpan]:
    """Return the steps of a sequence: first those of its reasoning, then those of its answer.

    Every token belongs to at most one step. A token that holds the end of one step and the beginning of the next
    belongs to the first of them; a step that is left without a token is part of the one before.
    """
    steps: list[StepSpan] = []
    for part in ("reasoning", "answer"):
        of_part = [s for s in segments if s.part == part]
        text = "".join(s.text for s in of_part)
        token_of = [s.token for s in of_part for _ in s.text]  # by character
        spans = split_text(text)
        found: list[StepSpan] = []
        for start, end in spans:
            first = max(token_of[start], found[-1].end if found else 0)
            last = token_of[end - 1]
            if last < first:
                before = found.pop()
                found.append(StepSpan(part, before.start, before.end, before.text_start, end))
            else:
                found.append(StepSpan(part, first, last + 1, start, end))
        steps += _joined(found)
    return steps


def _joined(steps: list[StepSpan]) -> list[StepSpan]:
    """Return the steps of one part with the tokens between two of them (a line break) given to the first."""
    if not steps:
        return []
    ends = [after.start for _, after in pairwise(steps)] + [steps[-1].end]
    return [StepSpan(s.part, s.start, end, s.text_start, s.text_end) for s, end in zip(steps, ends, strict=True)]

r"""A text as the Markdown that models write: its blocks, and the steps that a reader sees in them.

What is a paragraph, a list item, a table, or code, markdown-it-py decides. Text that is cut off is Markdown too: a code
block that nothing closes reaches to the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from langnorm.text.sentences import LIST_MARKER, sentences_between

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock

Kind = Literal["text", "heading", "code", "row", "formula", "rule"]

_LINE_END = re.compile(r"\r\n?|\n")
_KINDS: dict[str, Kind] = {
    "paragraph_open": "text",
    "heading_open": "heading",
    "fence": "code",
    "code_block": "code",
    "tr_open": "row",
    "hr": "rule",
    "formula": "formula",
}
# Those that are left out mean something else in answers: `---` below a line is a rule and no heading, text that is
# indented is no code, and there are neither HTML nor definitions of references.
_RULES = ["formula", "table", "fence", "blockquote", "hr", "list", "heading", "paragraph"]
_DEEPEST = 100  # containers in containers; what is deeper belongs to the block before it

_FORMULA_START = re.compile(r"\\\[|\$\$|\\begin\{([a-zA-Z]{1,20}\*?)\}")
_CLOSINGS = {"\\[": "\\]", "$$": "$$"}

_MARKERS = re.compile(r"(?:[ \t]*(?:>|[-*+•](?=\s|\Z)|\(?(?:\d{1,9}|[A-Za-z])[.)](?=\s|\Z)|#{1,6}(?=\s|\Z)))*\s*")
_BOLD_LINE = re.compile(r"(?:\*\*|__)(?=\S)[^*\n]*[^*\s.!?。！？](?:\*\*|__)[:：]?")
_LABEL = re.compile(r"\S+(?:[ \t]+\S+){0,2}[:：][*_]*")


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a text that holds no other.

    Attributes:
        kind: `"row"` is one of a table, that of its head with the line below it.
        start: Offset of its first line, with the markers of the list or the quotation that begin there.
        end: One past its last line.
    """

    kind: Kind
    start: int
    end: int


def read_blocks(text: str) -> list[Block]:
    """Return the blocks of a text in order. Between two there are only blank lines."""
    starts = [0, *(match.end() for match in _LINE_END.finditer(text)), len(text)]
    blocks: list[Block] = []
    is_head = False
    for token in _parser().parse(text):
        if token.type in ("thead_open", "thead_close"):
            is_head = token.nesting > 0
        kind = _KINDS.get(token.type)
        if kind is None or token.map is None:
            continue
        # Lines that belong to no block are empty items and what is nested too deep.
        start = blocks[-1].end if blocks else 0
        end = starts[min(token.map[1] + (kind == "row" and is_head), len(starts) - 1)]
        if text[start:end].strip():
            blocks.append(Block(kind, start, end))
    covered = blocks[-1].end if blocks else 0
    if text[covered:].strip():
        blocks.append(Block("text", covered, len(text)))
    return blocks


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return the [start, end) offsets of the steps that a reader sees in a text, without white space around them.

    A step is a sentence or a line, with the marker of its list item. A code block is one step, and so are a row of a
    table and a text that is JSON. A displayed formula belongs to the sentence before it, a heading to what follows it,
    and what has neither letter nor digit to the step before it. A line that is bold as a whole is a heading, and so are
    up to three words with a colon, unless a list follows.
    """
    if _is_json(text):
        return [(len(text) - len(text.lstrip()), len(text.rstrip()))]
    steps: list[tuple[int, int]] = []
    waiting: int | None = None  # where the headings begin that what follows belongs to
    label_end = 0  # of the last of them, where that is a few words with a colon
    has_formula = False  # whether the last step ends with one
    last_kind: Kind = "rule"
    for kind, start, end in _pieces(text):
        is_bare = not any(map(str.isalnum, text[start:end]))
        is_item = LIST_MARKER.match(text, start, end) is not None
        if waiting is not None and label_end and is_item:
            steps.append((waiting, label_end))
            waiting, last_kind, has_formula = None, "text", False
        label_end = 0
        if waiting is None and steps and (is_bare or _goes_on(text, start, kind, last_kind, has_formula)):
            steps[-1] = (steps[-1][0], end)
            has_formula = has_formula or kind == "formula"
        elif is_bare or _is_heading(text, start, end, kind):
            waiting = start if waiting is None else waiting
            label_end = end if kind == "text" and text[start:end].endswith((":", "：")) else 0
            continue
        else:
            steps.append((start if waiting is None else waiting, end))
            waiting, has_formula = None, kind == "formula"
        if not is_bare:
            last_kind = kind
    if waiting is not None:
        end = len(text.rstrip())
        if steps and _MARKERS.fullmatch(text, waiting, end):
            steps[-1] = (steps[-1][0], end)
        else:
            steps.append((waiting, end))
    return steps


def split_paragraphs(text: str) -> list[tuple[int, int]]:
    """Return the offsets of what stands between blank lines, without white space around it; code is left whole."""
    spans: list[tuple[int, int]] = []
    for block in read_blocks(text):
        piece = text[block.start : block.end]
        start = block.start + len(piece) - len(piece.lstrip())
        end = block.start + len(piece.rstrip())
        if spans and not _LINE_END.search(text, block.start, start):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def _is_json(text: str) -> bool:
    """Return whether a text is a JSON object or array."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):  # the latter of brackets that are opened and opened
        return False
    return True


def _goes_on(text: str, start: int, kind: Kind, last_kind: Kind, has_formula: bool) -> bool:  # noqa: FBT001
    """Return whether a piece belongs to the step before it."""
    if kind == "formula":  # one that is a list item of its own begins with a marker
        return last_kind == "text" and not has_formula and bool(_FORMULA_START.match(text, start))
    return kind == "text" and last_kind == "formula" and text[start].islower()  # "where x is the number of pens"


def _is_heading(text: str, start: int, end: int, kind: Kind) -> bool:
    """Return whether a piece is a heading: also a bold line, and a few words with a colon."""
    if kind != "text":
        return kind == "heading"
    marker = _MARKERS.match(text, start, end)
    begin = marker.end() if marker else start
    return begin == end or bool(_BOLD_LINE.fullmatch(text, begin, end) or _LABEL.fullmatch(text, begin, end))


def _pieces(text: str) -> Iterator[tuple[Kind, int, int]]:
    """Yield the blocks, those of text cut into sentences, without white space around them."""
    for block in read_blocks(text):
        spans = sentences_between(text, block.start, block.end) if block.kind == "text" else [(block.start, block.end)]
        for start, end in spans:
            piece = text[start:end]
            if piece.strip():
                begin = start + len(piece) - len(piece.lstrip())
                yield block.kind, begin, begin + len(piece.strip())


@cache
def _parser() -> MarkdownIt:
    """Return the parser, without what reads the insides of paragraphs."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"maxNesting": _DEEPEST})
    parser.block.ruler.before("table", "formula", _formula_rule, {"alt": ["paragraph", "blockquote", "list"]})
    parser.block.ruler.enableOnly(_RULES)
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def _formula_rule(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:  # noqa: FBT001
    """Read a displayed formula: a rule as markdown-it wants it.

    It reaches to its closing mark, or to a blank line, which no formula of LaTeX has.
    """
    opening = _FORMULA_START.match(state.src, state.bMarks[start_line] + state.tShift[start_line])
    if opening is None or opening.end() > state.eMarks[start_line]:
        return False
    if silent:
        return True
    closing = _CLOSINGS.get(opening[0]) or rf"\end{{{opening[1]}}}"
    line, offset = start_line, opening.end()
    closed = -1
    while True:
        closed = state.src.find(closing, offset, state.eMarks[line])
        line += 1
        if closed >= 0 or line >= end_line or state.isEmpty(line) or state.sCount[line] < state.blkIndent:
            break
        offset = state.bMarks[line]
    rest = state.src[closed + len(closing) : state.eMarks[line - 1]] if closed >= 0 else ""
    # A formula that a sentence goes on from is a part of that sentence.
    token = state.push("paragraph_open" if any(map(str.isalnum, rest)) else "formula", "", 0)
    token.map = [start_line, line]
    state.line = line
    return True

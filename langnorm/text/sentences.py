r"""Where sentences end in a paragraph.

A full stop that is followed by white space ends a sentence, with few exceptions. They are listed here rather than taken
from a library: those for Python know no formulas and no code, and none promises to be linear in the length of a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# A terminator with what closes behind it. Those of the second kind stand in scripts that put no space after them.
_END = re.compile(
    r"(?<![.!?…।॥؟۔።។])(?P<mark>[.!?…।॥؟۔።។]++)(?P<closing>(?:[\"'”’»)\]}*_~`]|\[\d{1,3}\])*+)[ \t]+"
    r"|(?P<wide>[。！？｡]++[”’」』）】》〉\"')\]*_]*+)[ \t]*"
)
_NEW_LINE = re.compile(r"(?<![ \t])[ \t]*(?:\r\n?|\n)\s*")
_OPENING = "\"'“‘«(*_~"  # what may stand before the first letter of a sentence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BEFORE_ANYTHING = _words(
    "mr mrs ms mx dr prof st mt messrs mme sr jr rev hon gen col maj capt lt sgt cmdr sen rep gov pres "
    "vs v cf viz e.g i.e al approx ca resp incl est"
)
"""Abbreviations that stand in the middle of a sentence, in lower case and without their last full stop."""

_BEFORE_NUMBERS = _words(
    "no nos nr fig figs eq eqs p pp vol ch chap sec sect art ex par ver pt ref tab thm lem def col row "
    "jan feb mar apr jun jul aug sep sept oct nov dec step case part example question problem exercise"
)
"""Abbreviations and words before whose number no sentence begins."""

_MAYBE_LAST = _words("inc ltd co corp bros ph.d m.d b.a m.a b.sc m.sc a.m p.m a.d b.c d.c u.s u.k e.u u.n")
"""Abbreviations that may also be the end of a sentence: it is one where a word of the next set follows."""

_STARTERS = _words(
    "a after all also although an and another any as at because before both but by each even every finally first for "
    "from given he hence her here his how however i if in instead is it its let many most my next no not note now on "
    "once one or our over she since so some such that the their then there therefore these they this those thus to "
    "under we what when where which while who why with yes yet you your"
)
"""Words, in lower case, that begin a sentence more often than they go on with a name."""

_WORD = re.compile(r"[^\W_]+(?:[.'’-][^\W_]+)*")
_LAST_WORD = re.compile(r"(?:[^\W\d_]+\.)*[^\W_]+\Z")
_LONGEST_WORD = 24  # characters that are looked at before a full stop

_FORMULA_ENDS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}
_BACKTICKS = re.compile(r"`+")
_PROTECTED = re.compile(r"`+|\\[(\[\\]|\$\$")

LIST_MARKER = re.compile(r"[ \t>]*(?:[-*+•]|\(?(?:\d{1,9}|[A-Za-z])[.)])(?=[ \t\r\n]|\Z)")
"""The marker of a list item, where a line begins."""

_ORDINAL = re.compile(
    r"[\W_]{0,8}(?:(?:step|case|part|example|question|problem|exercise)[ \t]+)?\w{1,3}\Z", re.IGNORECASE
)


def sentences_between(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the [start, end) offsets of the sentences and lines between two offsets of a text.

    A line that begins with `|` is a row of a table, and one sentence. Inside of code and of formulas nothing ends.
    """
    shielded = _shielded(text, start, end)
    line_start = start
    for cut, resume in [*_line_ends(text, start, end, shielded), (end, end)]:
        if text[line_start:cut].lstrip().startswith("|"):
            yield line_start, cut
        else:
            yield from _sentences(text, line_start, cut, shielded)
        line_start = resume


def _line_ends(text: str, start: int, end: int, shielded: _Shields) -> Iterator[tuple[int, int]]:
    for match in _NEW_LINE.finditer(text, start, end):
        if not shielded.covers(match.start()):
            yield match.span()


def _sentences(text: str, start: int, end: int, shielded: _Shields) -> Iterator[tuple[int, int]]:
    """Yield the sentences of a line."""
    begin = start
    marker = LIST_MARKER.match(text, start, end)
    for match in _END.finditer(text, marker.end() if marker else start, end):
        if match.end() >= end:
            break  # a terminator at the very end parts nothing
        if shielded.covers(match.start()) or not _is_end(text, begin, end, match):
            continue
        yield begin, match.end("wide") if match["wide"] else match.end("closing")
        begin = match.end()
    yield begin, end


def _is_end(text: str, begin: int, end: int, match: re.Match[str]) -> bool:
    """Return whether a terminator inside of a line ends the sentence that began at `begin`."""
    following = match.end()
    if match["wide"]:
        # In Japanese a quotation goes on: 「はい。」と言った。
        return not (match["wide"][-1] in "」』" and text.startswith(("と", "って"), following))
    while following < end and text[following] in _OPENING:
        following += 1
    first = text[following : following + 1]
    if first.islower():
        return False
    if match["mark"] != ".":
        is_elision = match["mark"] in ("...", "…") and text[match.start() - 1 : match.start()].isspace()
        return not is_elision
    if match["closing"].strip("*_"):
        return True
    word = _LAST_WORD.search(text, max(begin, match.start() - _LONGEST_WORD), match.start())
    return word is None or _ends_with(word, text, begin, following)


def _ends_with(word: re.Match[str], text: str, begin: int, following: int) -> bool:
    """Return whether a sentence ends after a word and its full stop."""
    lower = word[0].casefold()
    if lower in _BEFORE_ANYTHING:
        return False
    next_word = _WORD.match(text, following, following + _LONGEST_WORD)
    is_number = text[following : following + 1].isdigit() or text[following - 1 : following] == "("
    if lower in _BEFORE_NUMBERS and is_number:
        return False
    if word[0].isalnum() and len(word[0]) <= 3 and _ORDINAL.match(text, begin, word.end()):
        # "2. Add", "Step 2. Add", "B. Oslo", where the line or the sentence begins; but "No. That is wrong."
        return not (word[0].isdigit() or (len(word[0]) == 1 and word[0] != "I"))
    is_initial = len(word[0]) == 1 and word[0].isupper()
    if lower in _MAYBE_LAST or is_initial or re.fullmatch(r"(?:[A-Z]\.)+[A-Z]", word[0]):
        return next_word is None or re.split(r"['’]", next_word[0].casefold())[0] in _STARTERS
    return True


class _Shields:
    """Spans in which nothing ends."""

    def __init__(self, spans: list[tuple[int, int]]) -> None:
        self._spans = spans

    def covers(self, offset: int) -> bool:
        """Return whether a span holds the offset."""
        low, high = 0, len(self._spans)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._spans[middle][1] <= offset else (low, middle)
        return low < len(self._spans) and self._spans[low][0] <= offset


def _shielded(text: str, start: int, end: int) -> _Shields:
    """Return where code and formulas stand between two offsets."""
    runs: dict[int, list[int]] = {}
    for run in reversed(list(_BACKTICKS.finditer(text, start, end))):
        runs.setdefault(len(run[0]), []).append(run.start())
    spans: list[tuple[int, int]] = []
    unclosed: set[str] = set()
    offset = start
    while match := _PROTECTED.search(text, offset, end):
        offset, mark = match.end(), match[0]
        if mark[0] == "`":
            starts = runs[len(mark)]
            while starts and starts[-1] < offset:
                starts.pop()
            if starts:
                offset = starts.pop() + len(mark)
                spans.append((match.start(), offset))
        elif mark in _FORMULA_ENDS and mark not in unclosed:
            closing = text.find(_FORMULA_ENDS[mark], offset, end)
            if closing < 0:
                unclosed.add(mark)
            else:
                offset = closing + 2
                spans.append((match.start(), offset))
    return _Shields(spans)

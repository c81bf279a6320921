r"""Where a response states its answer: "The answer is 18 because 20 - 2 is 18" states 18, not the last number in it.

First that a text as a whole is JSON or one value; then what is boxed, what follows `####`, and what follows "the answer
is"; then a block of JSON; then what the last sentence comes to.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise, takewhile

from langnorm.selection.canonical import json_answer
from langnorm.selection.quantities import Quantity, quantities
from langnorm.selection.values import even, known_value, last_box, plain, wording
from langnorm.text.markdown import read_blocks, split_sentences

_HASHES = re.compile(r"^[ \t]*####[ \t]+(\S[^\n]*)$", re.MULTILINE)
_STATEMENT = re.compile(
    r"\banswer(?:\s+(?:choice|option))?(?:\s+(?:to|for|of)\s+[^\s.:\n]+(?:\s[^\s.:\n]+){0,7}?)?(?:\*\*|__)?\s*"
    r"(?:\b(?:is(?!n't)|was|are)\b(?!\s+not\b)|\b(?:would|will|should|must) be\b|\bequals\b|[=:：])[\s:：]*"
    r"|答案(?:[是为為]|[:：])\s*[:：]?|答えは|答え\s*[:：]\s*",
    re.IGNORECASE,
)
_FOLLOWS = re.compile(
    r"[*_\s]*(?:as follows|(?:shown |given )?below|the following|thus|therefore|then)?[*_:：,\s]*\Z", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"(?<=\S)(?:[.!?](?=\s|\*|\Z)|。|;|,?\s+(?:because|since|due to)\b|\s\((?!\w\)))")
_REASON = re.compile(
    r"(?<=\S)(?:,?\s+(?:as|which|where|given|when|if|so|after|for|in|out of|per)\b|\s[-–—]\s(?=[A-Za-z]))"
)
_RESULT = re.compile(
    r"\W*+(?:\d+[.)]\s+)?\W*+(?:so|thus|therefore|hence|finally|total|final|result|remaining|answer|in total)\b",
    re.IGNORECASE,
)
_PLAIN_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:/\d+)?")
_COMMAND = re.compile(r"\\[A-Za-z]+")
"""A command of LaTeX that makes a number a part of a formula, where `plain` leaves it: the 2 of `\\sqrt{2}`."""

_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_LONGEST_PHRASE = 400  # characters in which an answer is said
_MOST_ITEMS = 50
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_BRACKETED = re.compile(r"(?<![\w)\\])\([^()\n]*\)")
_LEAD = re.compile(
    r"(?:[-*+•]\s+|\(?\d{1,3}[.)]\s+|#{1,6}\s+)?(?:\*\*|__)?"
    r"(?:(?:so|thus|therefore|hence|then|finally|overall|in conclusion|in total|step \d+)\b[,:]?\s*)*"
    r"(?:i (?:think|believe|would say)(?: that)?\s+)?(?:(?:it|that|this)(?:['’]s| is)\s+(?!not\b))?",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"\W*(?:let me know|i hope|hope (?:this|that)|feel free|if you (?:have|need|want|would)|please let|is there any|"
    r"would you like|do you (?:have|need|want)|this is (?:the|my|our) (?:final )?answer|that'?s (?:it|all)|"
    r"(?:good luck|thank you|thanks|great job)\b)",
    re.IGNORECASE,
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|be|been|equals?|equal to|makes?|made|has|have|had|gets?|got|needs?|costs?|earns?|earned|"
    r"spends?|spent|pays?|paid|takes?|took|totals?|saves?|saved|sells?|sold|left|remains?|gives?|give|gave|there['’](?:re|s))\b"
    r"(?! not\b)",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r"\b[A-Za-z]\w{0,2} ?= ?[-\u2212$]?[\d.][^=]{0,80}(?:[,;]|\bor\b|\band\b)[^=]{0,80}\b[A-Za-z]\w{0,2} ?="
    r"|=[^=]{0,80}\bor\b[^=]{0,80}\Z"
)
"""Values of several variables, or several values of one."""

_JOINED = re.compile(r"\s*(?:,\s*)?(?:and|or|to|,|-|–)\s+\Z")
_ITEM = re.compile(r"[ \t>]*(?:[-*+•]|\(?\d{1,3}[.)])[ \t]+(?=\S)")


def stated_answer(text: str) -> str | None:
    """Return what a response states as its answer, equal for equal answers; None where it says nothing."""
    if not text.strip():
        return None
    return next(filter(None, (read(text) for read in (_whole, boxed, hashed, stated, fenced_json, _conclusion))), None)


def stated_number(text: str) -> str | None:
    """Return the number that a response states as its answer, in plain digits, or None.

    Where it states nothing, it is the number that the last sentence with a number comes to.
    """
    for read in (boxed, hashed, stated):
        if (answer := read(text)) and (found := _only_number(answer)):
            return found
    for sentence in reversed(_sentences(text)):
        if found := _number_of(sentence, only_numbers=True):
            return found
    return None


def boxed(text: str) -> str | None:
    r"""Return the value inside of the last `\boxed{...}` whose braces close, or None."""
    inside = last_box(text)
    return (even(inside) or None) if inside is not None else None


def hashed(text: str) -> str | None:
    """Return the value in the last line that begins with `####`, or None; a heading is none."""
    lines = _HASHES.findall(text)
    return next(filter(None, map(known_value, reversed(lines[-3:]))), None)


def stated(text: str) -> str | None:
    """Return the value that follows the last "the answer is", or None."""
    ends = [match.end() for match in _STATEMENT.finditer(text)]
    for end in reversed(ends[-3:]):
        if answer := _phrase_value(_said_from(text, end)):
            return answer
    return None


def fenced_json(text: str) -> str | None:
    """Return the JSON of the last block of code that is a JSON object or array, or None."""
    for block in reversed(read_blocks(text)) if "```" in text or "~~~" in text else ():
        if block.kind == "code":
            lines = text[block.start : block.end].strip().split("\n")
            if found := json_answer("\n".join(lines[1:]).rstrip().rstrip("`~")):
                return found
    return None


def _whole(text: str) -> str | None:
    """Return the value that a text is and no more, or None."""
    said = text.strip()
    if len(said) > _LONGEST_PHRASE or "\n" in said:
        return json_answer(text)
    return json_answer(text) or known_value(_LEAD.sub("", said, count=1))


def _conclusion(text: str) -> str | None:
    """Return what the last sentence of a text comes to; the yes or no that it begins with, or its list."""
    sentences = _sentences(text)
    if not sentences:
        return wording(text) or text.strip()
    last = _LEAD.sub("", sentences[-1], count=1)
    value = known_value(last) or (wording(last) if _COMMAND.search(plain(last)) and not _WORD.search(last) else None)
    if value not in ("yes", "no") and (first := known_value(sentences[0])) in ("yes", "no"):
        return first
    if items := _items(sentences):
        return "; ".join(known_value(item) or wording(item) for item in items)
    return value or _number_of(sentences[-1], only_numbers=False) or wording(last) or wording(text) or text.strip()


def _sentences(text: str) -> list[str]:
    """Return the sentences that say something, without code and without what is merely polite."""
    spans = split_sentences(text)
    if "```" in text or "~~~" in text:
        code = [(block.start, block.end) for block in read_blocks(text) if block.kind == "code"]
        spans = [span for span in spans if not _overlaps(span, code)]
    sentences = [text[start:end] for start, end in spans]
    return [sentence for sentence in sentences if not _FILLER.match(sentence)]


def _overlaps(span: tuple[int, int], ascending: Sequence[tuple[int, int]]) -> bool:
    """Return whether a span shares a character with one of others, which do not overlap."""
    i = bisect_left(ascending, span[1], key=lambda other: other[0]) - 1
    return i >= 0 and ascending[i][1] > span[0]


def _items(sentences: Sequence[str]) -> list[str]:
    """Return the items of the list that a text ends with; none where the last item is a result."""
    items = list(takewhile(_ITEM.match, reversed(sentences)))[::-1]
    if len(items) < 2:
        items = _items_of_line(" ".join(sentences[-_MOST_ITEMS:]))
    is_result = any("=" in item for item in items) or (items and _RESULT.match(items[-1]))
    return [] if len(items) < 2 or is_result else [_ITEM.sub("", item, count=1) for item in items]


def _items_of_line(line: str) -> list[str]:
    """Return the items of a line such as "1. Paris 2. Rome"."""
    starts: list[int] = []
    mark = "1. "
    while (start := line.find(mark, starts[-1] if starts else 0)) >= 0 and (starts or not line[:start].strip(" \n")):
        starts.append(start)
        mark = f" {len(starts) + 1}. "
    return [line[start:end].strip() for start, end in pairwise([*starts, len(line)])]


def _said_from(text: str, start: int) -> str:
    """Return the line that begins at an offset, or the next one where that line says nothing yet."""
    rest = text[start : start + _LONGEST_PHRASE]
    line, _, after = rest.partition("\n")
    if not _FOLLOWS.fullmatch(line):
        return line
    after = after.lstrip()
    if after.startswith(("\\[", "$$")):
        return after.partition("\n\n")[0]
    return after.partition("\n")[0]


def _phrase_value(said: str) -> str | None:
    """Return the value of what follows "the answer is", with or without its reason."""
    said = said.strip()
    phrase = said[: match.start()] if (match := _SENTENCE_END.search(said)) else said
    short = phrase[: match.start()] if (match := _REASON.search(phrase)) else phrase
    bold = _BOLD.findall(phrase)
    result = short.rpartition("=")[2] if "=" in short else ""
    for part in (phrase, short, *bold[:1], result):
        if part and (value := known_value(part)):
            return value
    if _COMMAND.search(plain(short)):
        return wording(short) or None
    found = quantities(plain(_BRACKETED.sub("", short)))
    return found[0].value if len(found) == 1 else wording(phrase) or None


def _number_of(sentence: str, *, only_numbers: bool) -> str | None:
    """Return the one quantity that a sentence comes to, or None.

    It is what stands in bold, after the last equals sign, or alone; the only one with a currency or percent sign; or
    the first one after the last verb such as "is" or "has". Of several others the last counts where only numbers do.
    """
    sentence = _LEAD.sub("", sentence, count=1)
    for bold in reversed(_BOLD.findall(sentence)):
        if len(found := _found(bold, only_numbers=only_numbers)) == 1:
            return found[0].value
    said = _BRACKETED.sub("", plain(sentence)) or plain(sentence)
    found = _found(said, only_numbers=only_numbers)
    if len(found) == 1:
        return found[0].value
    if not _SEVERAL.search(said):
        result = max(said.rfind("="), said.rfind("≈"))
        verbs = [match.end() for match in _VERB.finditer(said)]
        signed = [i for i, one in enumerate(found) if one.has_sign]
        after = [i for end in [result + 1] * (result >= 0) + verbs[::-1] for i in _first_after(found, end)]
        chosen = next(iter(after[: result >= 0] or (signed if len(signed) == 1 else after)), None)
        if chosen is not None and not _is_one_of_several(said, found, chosen):
            return found[chosen].value
    return found[-1].value if found and only_numbers else None


def _first_after(found: Sequence[Quantity], offset: int) -> list[int]:
    """Return the index of the first quantity from an offset on, if there is one."""
    i = bisect_left(found, offset, key=lambda one: one.start)
    return [i] if i < len(found) else []


def _is_one_of_several(said: str, found: Sequence[Quantity], chosen: int) -> bool:
    """Return whether a quantity is joined with the next one or the one before it, as in "2 and 3"."""
    pairs = pairwise(found[max(0, chosen - 1) : chosen + 2])
    return any(_JOINED.fullmatch(said, one.end, other.start) for one, other in pairs)


def _found(text: str, *, only_numbers: bool) -> list[Quantity]:
    return [one for one in quantities(text) if one.is_number or not only_numbers]


def _only_number(answer: str) -> str | None:
    return answer if _PLAIN_NUMBER.fullmatch(answer) else None

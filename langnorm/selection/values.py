r"""Values in the many ways in which models write them: equal ones become equal texts.

`18`, `$18.00`, `18 dollars`, `**18**` and `\(18\)` are one value. Units are left out, for a prompt asks for one unit;
`18%` is 18 for the same reason.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from langnorm.selection.quantities import number_in_words, quantities

_LONGEST_TUPLE = 200  # characters; what is longer is no answer of which the parts are compared

_BOXED = re.compile(r"\\(?P<box>f?boxe?d?)\s*\{|\\[{}\\]|[{}]")
_NAMED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox|operatorname|emph)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_COMMANDS = (
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\.?|\\[()\[\]]|\$\$"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;:! ]|\\q?quad(?![a-zA-Z])|~"), " "),
    (re.compile(r"\\times(?![a-zA-Z])"), "×"),
    (re.compile(r"\\cdot(?![a-zA-Z])"), "*"),
    (re.compile(r"\\(?:approx|simeq)(?![a-zA-Z])"), "≈"),
    (re.compile(r"\^\{?\\circ\}?|\\degree(?![a-zA-Z])|°"), "°"),
    (re.compile(r"\\([%$#&_])"), r"\1"),
)
_EMPHASIS = re.compile(r"\*\*|__|`")
_AROUND = ' \t\r\n.,;:!"’‘“”*_`'

_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:\(([A-Za-z])\)(?![^\s,.:;])|\[([A-Z])\]|(?P<bare>[A-Z])(?=\Z|[).:](?:\s|\Z)|\s+[(–—-]))"
    r"(?!\s*(?:,|and|or|&)\s*(?:and\s+|or\s+)?[(\[]?[A-Za-z]\b)",
    re.IGNORECASE,
)
_TRUTH = re.compile(r"(yes|no|true|false)(?=\Z|[,.;:!]| because\b| since\b)", re.IGNORECASE)
_HEDGE = re.compile(
    r"(?:≈|~|(?:about|approximately|approx\.?|around|roughly|exactly|only|just|a total of)\s)\s*", re.IGNORECASE
)
_ASSIGNED = re.compile(r"\s*(?:\\?[A-Za-z]+(?:[_^]\{?\w{1,8}\}?)?'?|[A-Za-z]\(\w{1,4}\))\s*[=≈]\s*(?=\S)")
_UNIT = re.compile(
    r"(?:km|cm|mm|m|kg|mg|g|s|h|l|ml|ft|in|lbs?|oz|mph|hrs?|mins?|secs?|yds?|mi)(?:\^?\d|[²³])?(?:/[a-z]{1,4}(?:\^?\d)?)?\b"
    r"|[^\W\d_a-zA-Z]{1,8}"
)
_WORD = (
    r"(?!(?:is|are|was|were|has|have|had|can|will|and|or|but|if|than|equals|plus|minus|times)\b)"
    r"(?:[^\W\d_]{2,}|[^\W\d_a-z]|[mgslh])(?:\^\{?\d\}?|[²³])?(?:[/'’.-][^\W\d_]+(?:\^\{?\d\}?|[²³])?)*+[,.]?"
)
_WORDS_OF_UNIT = re.compile(rf"[ \u00a0]?(?:°[CF]?|[€$£])|(?:[ \u00a0]|-){_WORD}(?: {_WORD}){{0,7}}")
_FUNCTIONS = frozenset(["sin", "cos", "tan", "log", "exp", "sqrt", "min", "max", "frac", "infty", "alpha", "beta"])
_ARTICLE = re.compile(r"(?:the|an?)\s+(?!and\b|or\b)(?=\w\w|\d)")


def even(text: str) -> str:
    r"""Return a text that is the same for equal values, however they are written; an empty one for no value.

    Args:
        text: A value and no more than that: what is inside a `\boxed{...}`, or what follows "The answer is".
    """
    return known_value(text) or wording(text)


def known_value(text: str) -> str | None:
    """Return what a text says as a number, time, date, choice, truth value, assignment or tuple; None for no such."""
    said = plain(text)
    if (choice := _CHOICE.match(said)) and (
        said[choice.end() :].strip(_AROUND + ")") == "" or not choice["bare"] or choice["bare"] in "ABCDEFGH"
    ):
        letter: str = next(filter(None, choice.groups()))
        if letter.isupper() or choice[1]:
            return letter.upper()
    if truth := _TRUTH.match(said):
        return str(truth[1]).lower()
    if assigned := _ASSIGNED.match(said):
        rest = said[assigned.end() :]
        if "=" in rest and re.search(r",|\bor\b|\band\b", rest):
            return None
        rest = rest.rpartition("=")[2].strip()
        return known_value(rest) or _formula(rest)
    said = _HEDGE.sub("", said, count=1) if _HEDGE.match(said) else said
    if (
        len(said) <= _LONGEST_TUPLE
        and said[:1] in ("(", "[", "\\")
        and (inner := re.fullmatch(r"(\(|\[|\\\{)(.*,.*)(\)|\]|\\\})", said, re.DOTALL))
    ):
        return inner[1] + ",".join(even(part) for part in _split(inner[2])) + inner[3]
    return _quantity_alone(said)


def _quantity_alone(said: str) -> str | None:
    """Return the value of a text that is a number with its unit, a time, a date, or some numbers with commas."""
    if number := number_in_words(said):
        return number
    found = quantities(said)
    if not found or found[0].start > 0:
        return None
    if len(found) == 1:
        rest = said[found[0].end :]
        is_unit = not rest or _UNIT.fullmatch(rest) or _WORDS_OF_UNIT.fullmatch(rest) or not rest.strip(" €$£%°.")
        return found[0].value if is_unit else None
    between = {said[one.end : other.start].strip() for one, other in pairwise(found)}
    return ",".join(one.value for one in found) if between == {","} and found[-1].end == len(said) else None


def wording(text: str) -> str:
    """Return a text without marks around it: a formula without spaces, words in lower case with single ones."""
    said = plain(text)
    words = re.findall(r"(?<!\\)\b[^\W\d_]{3,}", said)
    if all(word in _FUNCTIONS for word in words) and re.search(r"[\d\\^=+*/<>|(]", said):
        return _formula(said)
    quote = "'" * said.startswith("'")  # else it is that of f'
    said = said.strip(_AROUND + "$" + quote).casefold()
    return _ARTICLE.sub("", said, count=1) if _ARTICLE.match(said) else said


def _formula(said: str) -> str:
    return re.sub(r" (?!(?<=\w )\w)", "", said)  # "1 2" is not "12"


def plain(text: str) -> str:
    r"""Return a value without what only sets it: `**`, `\text{...}`, `\(`, and punctuation around it."""
    said = text
    if "\\" in said or "{" in said:
        said = _NAMED.sub(r" \1 ", said)
        said = _FRACTION.sub(_fraction, said)
        for pattern, replacement in _COMMANDS:
            said = pattern.sub(replacement, said)
    else:
        said = said.replace("$$", "")
    said = re.sub(r"[¼-¾⅐-⅞]", lambda match: f" {unicodedata.normalize('NFKC', match[0]).replace('⁄', '/')}", said)
    said = " ".join(_EMPHASIS.sub("", said).split()).replace(" ^", "^")
    if len(said) > 2 and said[0] == said[-1] == "$":
        said = said[1:-1]
    # No dot is taken from the front, where it may be that of .5, and no "!" from the end, where it may be that of 5!.
    return said.lstrip(" ,;:*_\"'“‘").rstrip(' .,;:*_"”')


def _fraction(match: re.Match[str]) -> str:
    top, bottom = match[1] or match[2] or "", match[3] or match[4] or ""
    if re.fullmatch(r"[-\u2212]?[\d., ]+", top) and re.fullmatch(r"[\d., ]+", bottom):
        is_mixed = match.string[match.start() - 1 : match.start()].isdigit()  # as in 1\frac{1}{2}
        return f" {top}/{bottom}" if is_mixed else f"{top}/{bottom}"
    return f"({top})/({bottom})"


def last_box(text: str) -> str | None:
    r"""Return what is inside the last `\boxed{...}` whose braces close, or None."""
    opened: list[tuple[bool, int]] = []
    start, end = -1, -1
    for match in _BOXED.finditer(text):
        mark = match[0]
        if mark == "}":
            is_box, begin = opened.pop() if opened else (False, -1)
            if is_box and begin > start:
                start, end = begin, match.start()
        elif mark[0] == "{" or match["box"]:
            opened.append((bool(match["box"]), match.end()))
    return text[start:end] if start >= 0 else None


def _split(text: str) -> list[str]:
    """Return the parts of a text between commas that stand in no bracket, and between no two digits of thousands."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth <= 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]

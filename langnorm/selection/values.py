r"""Values in the many ways in which models write them: equal ones become equal texts.

`18`, `$18.00`, `18 dollars`, `**18**` and `\(18\)` are one value. Units are left out, for a prompt asks for one unit;
`18%` is 18 for the same reason. Numbers are compared as fractions, so that 3/4 is 0.75 and 1/3 is not 0.33.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

_LONGEST_NUMBER = 100  # characters; of a longer one no fraction is made, which stays as it is
_LONGEST_TUPLE = 200  # characters; what is longer is no answer of which the parts are compared

_SPACE = r"[ \u00a0\u2007\u2009\u202f]"
# Thousands are parted by commas or by spaces, by the same ones throughout.
_DIGITS = (
    rf"(?:\d{{1,3}}(?P<sep>,|'|{_SPACE})\d{{3}}(?!\d)(?:(?P=sep)\d{{3}}(?!\d))*+(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\.)\.\d+)"
)
_PLAIN_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_CURRENCY = r"(?:(?:US|USD|EUR|GBP|A|C|NZ|Rs\.?) ?)?[$€£¥₹₩](?!\w*\$)|(?:USD|EUR|GBP|Rs\.?) ?(?=\d)"
_POWER = r"\^(?:\{(?P<braced>[-\u2212]?\d{1,3})\}|(?P<bare>[-\u2212]?\d{1,3}))"
# A sign belongs to a number only where no other number or word stands before it: 47-385 has no negative number.
_NUMBER = re.compile(
    rf"(?<![\w^])(?<!\d\.)(?<!\^\{{)(?P<sign>(?<![)\]}}])[-\u2212+](?=[\d.$€£]))?(?P<currency>{_CURRENCY})?(?:(?<=\$)(?P<minus>[-\u2212]))?"
    rf"(?P<top>{_DIGITS})"
    rf"(?:(?P<exponent>[eE][-+]?\d{{1,2}}(?!\w))|(?P<times>{_SPACE}?[x×*]{_SPACE}?10)?{_POWER}(?!\d)"
    rf"|/(?P<bottom>{_PLAIN_DIGITS})|[ ](?P<part>\d{{1,4}}/\d{{1,4}})(?![\d/]))?"
    rf"(?P<percent>{_SPACE}?(?:%|percent\b|per cent\b))?"
    rf"(?:{_SPACE}?(?P<scale>thousand|million|billion|trillion)\b)?",
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_TIME = re.compile(
    r"(?<![\w:.])(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?![\d:])"
    r"(?: ?(?P<half>[aApP])\.? ?[mM]\b\.?)?|(?<![\w:.])(?P<hour_only>1[0-2]|0?[1-9]) ?(?P<its_half>[aApP])\.? ?[mM]\b\.?"
)
_RATIO = re.compile(r"(?<![\w:.])\d{1,9}(?: ?: ?\d{1,9}){1,3}(?! ?[\d:])")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"  # noqa: E501
_DATE = re.compile(
    r"(?<!\w)(?P<iso>\d{4}-\d{2}-\d{2})(?!\w)"
    rf"|\b(?P<month>{_MONTH})\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,? (?P<year>\d{{4}}))?(?!\w)"
    rf"|(?<!\w)(?P<day_first>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<its_month>{_MONTH})\b\.?(?:,? (?P<its_year>\d{{4}}))?(?!\w)",
    re.IGNORECASE,
)

_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"  # noqa: E501
_WORDS = {word: number for number, word in enumerate(_SMALL.split())}
_WORDS |= {
    word: 10 * number
    for number, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}

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
_AROUND = " \t\r\n.,;:!\"'’‘“”*_`"

_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:\(([A-Za-z])\)(?![^\s,.:;])|\[([A-Z])\]|([A-Z])(?=\Z|[).:](?:\s|\Z)|\s+[(–—-]))"
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
_WORDS_OF_UNIT = re.compile(
    r"(?:[ \u00a0-]?(?:°[CF]?|€|\$|£)|[ \u00a0-]+(?:[^\W\d_]{2,}|[^\W\d_a-z]|[mgslh])(?:\^\{?\d\}?|[²³])?"
    r"(?:[/'’.-][^\W\d_]+(?:\^\{?\d\}?|[²³])?)*[,.]?){1,8}"
)
_FUNCTIONS = frozenset(["sin", "cos", "tan", "log", "exp", "sqrt", "min", "max", "frac", "infty", "alpha", "beta"])
_ARTICLE = re.compile(r"(?:the|an?)\s+")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, a time or a date in a text.

    Attributes:
        start: Offset of its first character.
        end: One past its last one.
        value: Equal for equal ones.
        has_sign: Whether a currency or a percent sign stands beside it.
        is_number: Whether it is a number.
    """

    start: int
    end: int
    value: str
    has_sign: bool = False
    is_number: bool = True


def quantities(text: str) -> list[Quantity]:
    """Return the numbers, times and dates of a text in order; what belongs to a word, as in `H2O`, is none."""
    found = [Quantity(*match.span(), _date(match), is_number=False) for match in _DATE.finditer(text)]
    for pattern, read in ((_TIME, _time), (_RATIO, _ratio)):
        found += [Quantity(*match.span(), read(match), is_number=False) for match in pattern.finditer(text)]
    found.sort(key=lambda quantity: (quantity.start, -quantity.end))
    ordered: list[Quantity] = []
    offset = 0
    for other in [*found, Quantity(len(text), len(text), "")]:
        if other.start < offset:
            continue
        ordered += _numbers(text, offset, other.start)
        ordered.append(other)
        offset = other.end
    return ordered[:-1]


def _numbers(text: str, start: int, end: int) -> Iterator[Quantity]:
    for match in _NUMBER.finditer(text, start, end):
        yield Quantity(*match.span(), _value(match), has_sign=bool(match["currency"] or match["percent"]))


def even(text: str) -> str:
    r"""Return a text that is the same for equal values, however they are written; an empty one for no value.

    Args:
        text: A value and no more than that: what is inside a `\boxed{...}`, or what follows "The answer is".
    """
    return known_value(text) or wording(text)


def known_value(text: str) -> str | None:
    """Return what a text says as a number, time, date, choice, truth value, assignment or tuple; None for no such."""
    said = plain(text)
    if (choice := _CHOICE.match(said)) and (said[choice.end() :].strip(_AROUND + ")") == "" or choice[1] or choice[2]):
        letter = next(filter(None, choice.groups()))
        if letter.isupper() or choice[1]:
            return letter.upper()
    if truth := _TRUTH.match(said):
        return truth[1].lower()
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
    if (number := _WORDS.get(said.split(" ", 1)[0].casefold().partition("-")[0])) is not None:
        return _worded(said, number)
    found = quantities(said)
    if not found or found[0].start > 0:
        return None
    if len(found) == 1:
        rest = said[found[0].end :]
        is_unit = not rest or _UNIT.fullmatch(rest) or _WORDS_OF_UNIT.fullmatch(rest) or not rest.strip(" €$£%°.")
        return found[0].value if is_unit else None
    between = {said[one.end : other.start].strip() for one, other in zip(found, found[1:], strict=False)}
    return ",".join(one.value for one in found) if between == {","} and found[-1].end == len(said) else None


def _worded(said: str, number: int) -> str | None:
    """Return a number that is written as a word, alone or with one word behind it."""
    first, _, rest = said.casefold().partition(" ")
    tens, _, ones = first.partition("-")
    if ones and not (number >= 20 and 0 < _WORDS.get(ones, 0) < 10):
        return None
    return str(number + _WORDS.get(ones, 0)) if rest.count(" ") == 0 and "of" not in rest.split() else None


def wording(text: str) -> str:
    """Return a text without marks around it: a formula without spaces, words in lower case with single ones."""
    said = plain(text)
    words = re.findall(r"(?<!\\)\b[^\W\d_]{3,}", said)
    if all(word in _FUNCTIONS for word in words) and re.search(r"[\d\\^=+*/<>|(]", said):
        return _formula(said)
    said = said.strip(_AROUND + "$").casefold()
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
    said = " ".join(_EMPHASIS.sub("", said).split())
    said = said.strip(" ")
    if len(said) > 2 and said[0] == said[-1] == "$":
        said = said[1:-1]
    # No dot is taken from the front, where it may be that of .5, and no "!" from the end, where it may be that of 5!.
    return said.lstrip(" ,;:*_\"'“‘").rstrip(' .,;:*_"”')


def _fraction(match: re.Match[str]) -> str:
    top, bottom = match[1] or match[2] or "", match[3] or match[4] or ""
    if re.fullmatch(r"[-\u2212]?[\d., ]+", top) and re.fullmatch(r"[\d., ]+", bottom):
        return f" {top}/{bottom}"
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


def _time(match: re.Match[str]) -> str:
    half = (match["half"] or match["its_half"] or "").lower()
    hour, minute = int(match["hour"] or match["hour_only"]), match["minute"] or "00"
    if half and hour <= 12:
        hour = hour % 12 + 12 * (half == "p")
    second = match["second"]
    return f"{hour}:{minute}" + (f":{second}" if second and second != "00" else "")


def _ratio(match: re.Match[str]) -> str:
    return match[0].replace(" ", "")


def _date(match: re.Match[str]) -> str:
    if match["iso"]:
        return match["iso"]
    month = 1 + _MONTHS.index((match["month"] or match["its_month"])[:3].lower())
    year = match["year"] or match["its_year"]
    day = int(match["day"] or match["day_first"])
    return f"{year}-{month:02}-{day:02}" if year else f"{month:02}-{day:02}"


def _value(match: re.Match[str]) -> str:
    """Return a number without separators: a fraction in lowest terms, or as a decimal where it is one."""
    top = re.sub(rf"[,']|{_SPACE}", "", match["top"]) + (match["exponent"] or "")
    bottom = (match["bottom"] or "").replace(",", "")
    is_negative = (match["sign"] or match["minus"] or "").strip() in ("-", "\u2212")
    sign = "-" if is_negative else ""
    power = (match["braced"] or match["bare"] or "").replace("\u2212", "-")
    is_long = len(match[0]) > _LONGEST_NUMBER
    if not bottom and not match["part"] and not power and not match["scale"]:
        return _digits(sign + top)
    if is_long or (bottom and not Decimal(bottom)):
        return f"{_digits(sign + top)}/{_digits(bottom)}" if bottom else match[0]
    number = Fraction(top)
    if bottom:
        number /= Fraction(bottom)
    elif match["part"]:
        part_top, _, part_bottom = match["part"].partition("/")
        if not int(part_bottom):
            return match[0]
        number += Fraction(int(part_top), int(part_bottom))
    elif power and match["times"]:
        number *= Fraction(10) ** int(power)
    elif power:
        if len(top) * abs(int(power)) > _LONGEST_NUMBER or not number:
            return match[0]
        number **= int(power)
    number *= _SCALES.get(match["scale"], 1)
    return _exact(-number if is_negative else number)


def _exact(number: Fraction) -> str:
    """Return a fraction as a decimal where it is one, else in lowest terms."""
    places = number.denominator.bit_length()
    shifted = number * 10**places
    return _digits(f"{shifted}e-{places}") if shifted.denominator == 1 else str(number)


def _digits(number: str) -> str:
    """Return a decimal number without exponent, zeros that say nothing, and a sign of zero; all its digits are kept."""
    digits = format(Decimal(number), "f")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if digits == "-0" else digits

"""Numbers, times and dates in a text, in one form for equal ones.

Numbers are compared as fractions, so that 3/4 is 0.75 and 1/3 is not 0.33.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

_LONGEST_NUMBER = 100  # characters; of a longer one no fraction is made, which stays as it is
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
    rf"(?<![\w^])(?<!\d\.)(?<!\^\{{)(?P<sign>(?<![)\]}}])[-\u2212+](?=[\d.$€£]))?"
    rf"(?P<currency>{_CURRENCY})?(?:(?<=\$)(?P<minus>[-\u2212]))?"
    rf"(?P<top>{_DIGITS})"
    rf"(?:(?P<exponent>[eE][-+]?\d{{1,2}}(?!\w))|(?P<times>{_SPACE}?[x×*]{_SPACE}?10)?{_POWER}(?!\d)"
    rf"|/(?P<bottom>{_PLAIN_DIGITS})|[ ](?P<part>\d{{1,4}}/\d{{1,4}})(?![\d/]))?"
    rf"(?P<percent>{_SPACE}?(?:%|percent\b|per cent\b))?"
    rf"(?:{_SPACE}?(?P<scale>thousand|million|billion|trillion)\b)?",
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_TIME = re.compile(
    r"(?<![\w:.])(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?![\d:])"
    r"(?: ?(?P<half>[aApP])\.? ?[mM]\b\.?)?"
    r"|(?<![\w:.])(?P<hour_only>1[0-2]|0?[1-9]) ?(?P<its_half>[aApP])\.? ?[mM]\b\.?"
)
_RATIO = re.compile(r"(?<![\w:.])\d{1,9}(?: ?: ?\d{1,9}){1,3}(?! ?[\d:])")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)"
)
_DATE = re.compile(
    r"(?<!\w)(?P<iso>\d{4}-\d{2}-\d{2})(?!\w)"
    rf"|\b(?P<month>{_MONTH})\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,? (?P<year>\d{{4}}))?(?!\w)"
    rf"|(?<!\w)(?P<day_first>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<its_month>{_MONTH})\b\.?"
    rf"(?:,? (?P<its_year>\d{{4}}))?(?!\w)",
    re.IGNORECASE,
)

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: number for number, word in enumerate(_SMALL.split())}
_WORDS |= {word: 10 * number for number, word in enumerate(_TENS.split(), start=2)}


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


def number_in_words(said: str) -> str | None:
    """Return the number that a text writes as a word, alone or with one word behind it, or None."""
    first, _, rest = said.casefold().partition(" ")
    tens, _, ones = first.partition("-")
    number = _WORDS.get(tens)
    if number is None or " " in rest or rest == "of":
        return None
    if ones and not (number >= 20 and 0 < _WORDS.get(ones, 0) < 10):
        return None
    return str(number + _WORDS.get(ones, 0))


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

"""How the final answer of a response is read from its text, so that equal answers can be counted as votes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

from langnorm.checks import brief
from langnorm.errors import OptionError, closest

_UNSIGNED = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+)(?:[eE][-+]?\d{1,2}(?!\w))?"
# A sign belongs to a number only where no other number or word stands before it: 47-385 has no negative number.
_NUMBER = re.compile(rf"(?<!\w)(?<!\d\.)(?:(?<![)\]])[-\u2212]\$?)?{_UNSIGNED}(?:/{_UNSIGNED})?")
_LONGEST_FRACTION = 100  # characters; one that is longer stays as it is
_BOXED = "\\boxed{"
_MARKS = "!*_`\"'"  # mean nothing around a line; in a boxed formula they do


class SupportsInvoke(Protocol):
    """An output parser, such as those of LangChain: it reads an answer from a text, or raises ValueError."""

    def invoke(self, text: str, /) -> Any:
        """Return the answer of a text."""


def last_number(text: str) -> str | None:
    """Return the last number of a text in plain digits, or None.

    Equal numbers give equal texts: `"1234.5"` for 1,234.50, `"0.75"` for 6/8, `"1/3"` for 2/6.
    """
    numbers = _NUMBER.findall(text)
    return _plain(numbers[-1]) if numbers else None


def last_boxed(text: str) -> str | None:
    r"""Return what is inside the last `\boxed{...}` whose braces close, a number in plain digits, or None."""
    start = text.rfind(_BOXED)
    while start >= 0:
        depth = 1
        for i in range(begin := start + len(_BOXED), len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if not depth:
                return _evened(text[begin:i]) or None
        start = text.rfind(_BOXED, 0, start)
    return None


def last_line(text: str) -> str | None:
    """Return the last line that says something, in lower case and without marks around it, or None.

    A line that is a number is returned in plain digits.
    """
    return next(filter(None, (_evened(line, _MARKS).casefold() for line in reversed(text.splitlines()))), None)


def _evened(text: str, marks: str = "") -> str:
    """Return a text without `marks` and punctuation around it and with single spaces; a number in plain digits."""
    # No dot is taken from the front, where it may be that of .5.
    said = " ".join(text.split()).lstrip(f" ,;:${marks}").rstrip(f" .,;:${marks}")
    return _plain(said) if _NUMBER.fullmatch(said) else said


def _json(text: str) -> str | None:
    """Return a text that is a JSON object or array in its canonical form."""
    try:
        value = json.loads(text)
        return canonical(value) if isinstance(value, dict | list) else None
    except (ValueError, RecursionError):  # of brackets that are opened and opened
        return None


def any_form(text: str) -> str | None:
    """Return the JSON that a text is, or its last boxed answer, last number or last line: the first that there is."""
    return next(filter(None, (read(text) for read in (_json, last_boxed, last_number, last_line))), None)


AnswerForm = str | Callable[[str], Any] | SupportsInvoke
"""What the option `answer` of a selection takes: a name of `ANSWER_FORMS`, a function of the text, or a parser."""

ANSWER_FORMS: dict[str, Callable[[str], str | None]] = {
    "auto": any_form,
    "number": last_number,
    "boxed": last_boxed,
    "line": last_line,
}
"""What the option `answer` of a selection takes by name."""


def check_answer_form(form: object) -> None:
    """Raise `OptionError` unless `form` is a name, a function of a text, or an output parser."""
    is_parser = hasattr(form, "invoke")
    if isinstance(form, type) and is_parser:
        msg = f"`answer={form.__name__}` is a class. Give an instance of it: `answer={form.__name__}(...)`."
        raise OptionError(msg)
    if is_parser or callable(form) or (isinstance(form, str) and form in ANSWER_FORMS):
        return
    names = ", ".join(f'"{name}"' for name in ANSWER_FORMS)
    msg = f"`answer={brief(form)}` is not allowed. Use {names}, a function of the text, or an output parser."
    raise OptionError(msg + closest(str(form), ANSWER_FORMS))


def name_of_form(form: object) -> str:
    """Return how a message names the way in which answers were read."""
    return form if isinstance(form, str) else getattr(form, "__name__", type(form).__name__)


def read_answer(form: AnswerForm, text: str, calls: Sequence[Mapping[str, Any]] = ()) -> str | None:
    """Return the answer of a response as a text that is the same for equal answers, or None.

    Args:
        form: A name of `ANSWER_FORMS`, a function of the text, or an output parser. One that raises ValueError, as
            parsers of LangChain do, has found no answer; nor has one that returns None or an empty text.
        text: What the response says after its reasoning.
        calls: Its tool calls, each with `name` and `args`. Where there are any, they are the answer, in their order.
    """
    if isinstance(form, str) and not calls:
        return ANSWER_FORMS[form](text)
    try:
        if calls:
            return canonical([{"name": call["name"], "args": call["args"]} for call in calls])
        answer = form.invoke(text) if hasattr(form, "invoke") else form(text)  # type: ignore[operator]
        return None if answer is None else canonical(answer) or None
    except (ValueError, RecursionError):  # the latter from values that are nested too deep
        return None


def canonical(value: Any) -> str:
    """Return a text that is the same for equal values: JSON with sorted keys; texts stay as they are."""
    return value if isinstance(value, str) else json.dumps(_json_value(value), sort_keys=True, ensure_ascii=False)


def _json_value(value: Any) -> Any:
    """Return a value in JSON types: 2.0 as 2, the elements of sets in order, and what JSON has no word for as text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(canonical, value))
    dump = getattr(value, "model_dump", None) or getattr(value, "dict", None)
    return _json_value(dump()) if callable(dump) else repr(value)


def _plain(number: str) -> str:
    """Return a number without separators: a fraction in lowest terms, or as a decimal where it is one."""
    text = number.replace(",", "").replace("$", "").replace("\u2212", "-")
    top, _, bottom = text.partition("/")
    if not bottom:
        return _digits(text)
    if len(text) > _LONGEST_FRACTION or not Decimal(bottom):
        return f"{_digits(top)}/{_digits(bottom)}"
    fraction = Fraction(top) / Fraction(bottom)
    places = fraction.denominator.bit_length()
    shifted = fraction * 10**places
    return _digits(f"{shifted}e-{places}") if shifted.denominator == 1 else str(fraction)


def _digits(number: str) -> str:
    """Return a decimal number without exponent, zeros that say nothing, and a sign of zero; all its digits are kept."""
    digits = format(Decimal(number), "f")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if digits == "-0" else digits

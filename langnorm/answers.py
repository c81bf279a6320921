"""How the final answer of a response is read from its text, so that equal answers can be counted as votes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langnorm.errors import OptionError, closest

# A sign belongs to a number only where no other number or word stands before it: 47-385 has no negative number.
_NUMBER = re.compile(r"(?<![\w.])(?:(?<![)\]])[-\u2212])?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+(?:\.\d+)?)?")
_BOXED = "\\boxed{"
_DROPPED = " .,;:!*_`\"'$"  # around a last line or a boxed answer: marks of typography


def last_number(text: str) -> str | None:
    """Return the last number of a text in plain digits, such as `"1234.5"` for 1,234.50, or None."""
    found = _NUMBER.findall(text)
    return _plain(found[-1]) if found else None


def last_boxed(text: str) -> str | None:
    r"""Return what is inside the last `\boxed{...}` whose braces close, a number in plain digits, or None."""
    start = text.rfind(_BOXED)
    while start >= 0:
        depth = 1
        for i in range(begin := start + len(_BOXED), len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if not depth:
                inside = " ".join(text[begin:i].split()).strip(_DROPPED)
                return (_plain(inside) if _NUMBER.fullmatch(inside) else inside) or None
        start = text.rfind(_BOXED, 0, start)
    return None


def last_line(text: str) -> str | None:
    """Return the last line that says something, in lower case, white space and surrounding marks evened out."""
    for line in reversed(text.splitlines()):
        if said := " ".join(line.split()).strip(_DROPPED).casefold():
            return said
    return None


def _json(text: str) -> str | None:
    """Return a text that is a JSON object or array in its canonical form."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return canonical(value) if isinstance(value, dict | list) else None


def any_form(text: str) -> str | None:
    """Return the JSON that a text is, or its last boxed answer, last number or last line: the first that there is."""
    return next((found for read in (_json, last_boxed, last_number, last_line) if (found := read(text))), None)


ANSWER_FORMS: dict[str, Callable[[str], str | None]] = {
    "auto": any_form,
    "number": last_number,
    "boxed": last_boxed,
    "line": last_line,
}
"""What the option `answer` of a selection takes by name."""


def check_answer_form(form: object) -> None:
    """Raise `OptionError` unless `form` is a name, a function of a text, or an output parser."""
    if callable(form) or callable(getattr(form, "invoke", None)) or (isinstance(form, str) and form in ANSWER_FORMS):
        return
    names = ", ".join(f'"{name}"' for name in ANSWER_FORMS)
    msg = f"`answer={form!r}` is not allowed. Use {names}, a function of the text, or an output parser."
    raise OptionError(msg + closest(str(form), ANSWER_FORMS))


def name_of(form: object) -> str:
    """Return how a message names the way in which answers were read."""
    return form if isinstance(form, str) else getattr(form, "__name__", type(form).__name__)


def read_answer(form: Any, text: str, calls: Sequence[Mapping[str, Any]] = ()) -> str | None:
    """Return the answer of a response as a text that is the same for equal answers.

    Args:
        form: A name of `ANSWER_FORMS`, a function of the text, or an output parser. One that raises ValueError, as
            parsers of LangChain do, has found no answer.
        text: What the response says after its reasoning.
        calls: Its tool calls, each with `name` and `args`. Where there are any, they are the answer.
    """
    if calls:
        return canonical([{"name": call["name"], "args": call["args"]} for call in calls])
    if isinstance(form, str):
        return ANSWER_FORMS[form](text)
    try:
        found = form.invoke(text) if hasattr(form, "invoke") else form(text)
    except ValueError:
        return None
    return None if found is None or found == "" else canonical(found)


def canonical(value: Any) -> str:
    """Return a text that is the same for equal values: JSON with sorted keys; texts stay as they are."""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain_object)


def _plain_object(value: Any) -> Any:
    dump = getattr(value, "model_dump", None) or getattr(value, "dict", None)
    return dump() if callable(dump) else repr(value)


def _plain(number: str) -> str:
    """Return a number without separators, zeros that say nothing, and a sign of zero; all its digits are kept."""
    parts = []
    for part in number.replace(",", "").replace("\u2212", "-").split("/"):
        whole, _, decimals = part.removeprefix("-").partition(".")
        digits = ".".join(filter(None, (whole.lstrip("0") or "0", decimals.rstrip("0"))))
        parts.append("-" + digits if part.startswith("-") and digits != "0" else digits)
    return "/".join(parts)

"""How the final answer of a response is read from its text, so that equal answers can be counted as votes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from langnorm.checks import brief, is_async, refuse
from langnorm.errors import OptionError, closest
from langnorm.selection.canonical import canonical
from langnorm.selection.statements import boxed, stated_answer, stated_number
from langnorm.selection.values import even


class SupportsInvoke(Protocol):
    """An output parser, such as those of LangChain: it reads an answer from a text, or raises ValueError."""

    def invoke(self, text: str, /) -> Any:
        """Return the answer of a text."""


def last_line(text: str) -> str | None:
    """Return the last line that says something, as a value or in lower case and without marks around it, or None."""
    return next(filter(None, map(even, reversed(text.splitlines()))), None)


AnswerForm = str | Callable[[str], Any] | SupportsInvoke
"""What the option `answer` of a selection takes: a name of `ANSWER_FORMS`, a function of the text, or a parser."""

ANSWER_FORMS: dict[str, Callable[[str], str | None]] = {
    "auto": stated_answer,
    "number": stated_number,
    "boxed": boxed,
    "line": last_line,
}
"""What the option `answer` of a selection takes by name."""


def check_answer_form(form: object) -> None:
    """Raise `OptionError` unless `form` is a name, a function of a text, or an output parser."""
    is_parser = hasattr(form, "invoke")
    if isinstance(form, type) and is_parser:
        msg = f"`answer={form.__name__}` is a class. Give an instance of it: `answer={form.__name__}(...)`."
        raise OptionError(msg)
    if is_async(form):
        refuse("answer", form, "a function that is not async: it reads texts that are there")
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
            parsers of LangChain do, has found no answer; nor has one that returns None, an empty text, or what is no
            value, such as an object of a class without `__repr__`.
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

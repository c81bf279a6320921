"""The note that asks a model to redo the weak steps of its answer."""

from __future__ import annotations

import textwrap
from string import Formatter
from typing import Any

from langnorm.errors import OptionError
from langnorm.trace import NormTrace

NOTE = (
    "These steps of your last answer were written with little effort:\n{steps}\n"
    "Go through them again with care, and give the whole answer anew."
)

_MOST_STEPS = 5
_MOST_CHARACTERS = 200  # of a step


def note_template(note: Any) -> str | None:
    """Return the text that a user means: True for ours, a text with `{steps}` where the weak steps go, False for none.

    Raises:
        OptionError: It is something else.
    """
    if isinstance(note, bool):
        return NOTE if note else None
    try:
        names = [name for _, name, _, _ in Formatter().parse(note) if name is not None]
    except (TypeError, ValueError):
        names = []
    if set(names) != {"steps"}:
        msg = f"`note={note!r}` is not allowed. Use True, False, or a text with `{{steps}}` and no other braces."
        raise OptionError(msg)
    return str(note)


def weak_steps(message: Any) -> dict[int, str]:
    """Return the texts of the first low steps of a message by their indices; long ones are shortened."""
    trace = NormTrace.from_message(message)
    texts = {"reasoning": message.additional_kwargs.get("reasoning_content", ""), "answer": str(message.text)}
    found = {}
    for i in trace.low_steps or ():
        step = trace.steps[i]
        text = texts.get(step.kind, "")[slice(*step.text_span)]
        if text := textwrap.shorten(text, _MOST_CHARACTERS, placeholder=" ..."):
            found[i] = text
    return dict(list(found.items())[:_MOST_STEPS])

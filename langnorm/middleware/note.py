"""The note that asks a model to redo the weak steps of its answer."""

from __future__ import annotations

import textwrap
from itertools import islice
from string import Formatter
from typing import TYPE_CHECKING, Any

from langnorm.errors import OptionError
from langnorm.trace import NormTrace

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

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
        note.format(steps="- a step")  # what stands behind a name may ask for more
    except (TypeError, ValueError, LookupError, AttributeError):
        names = []
    if set(names) != {"steps"}:
        msg = f"`note={note!r}` is not allowed. Use True, False, or a text with `{{steps}}` and no other braces."
        raise OptionError(msg)
    return str(note)


def weak_steps(message: BaseMessage) -> dict[int, str]:
    """Return the texts of a message's first low steps by the steps' indices; long texts are shortened.

    Tool calls are passed over: a message does not carry their text.

    Raises:
        OptionError: The message carries no norms.
    """
    trace = NormTrace.from_message(message)
    texts = trace.step_texts(message)
    shortened = ((i, textwrap.shorten(texts[i], _MOST_CHARACTERS, placeholder=" ...")) for i in trace.low_steps or ())
    return dict(islice(((i, text) for i, text in shortened if text), _MOST_STEPS))

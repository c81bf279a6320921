"""The errors langnorm raises, and the hint for a misspelt name.

Each class also derives from the built-in error that fits, so that `except ValueError` works as it
does for other chat models.
"""

from __future__ import annotations

import difflib
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from langchain_core.messages import AIMessage


class LangNormError(Exception):
    """Base class of every error that langnorm raises on purpose. Its text can be printed, whatever it quotes."""

    def __str__(self) -> str:
        return super().__str__().encode(errors="backslashreplace").decode()


class OptionError(LangNormError, ValueError):
    """An option has an unknown name or a value that is not allowed."""


class ModelError(LangNormError, RuntimeError):
    """A model cannot be loaded or used: its weights do not load, or its decoder layers are not found."""


class PromptError(LangNormError, ValueError):
    """The messages cannot be run: they are empty, too long for the context, or not text."""


class MemoryLimitError(LangNormError, MemoryError):
    """A request does not fit into the memory of the device, alone in its batch."""


class MissingDependencyError(LangNormError, ImportError):
    """An optional package is needed for what was asked and is not installed."""


class RemoteError(LangNormError, ConnectionError):
    """A server that runs the model cannot be reached, or has refused or broken off a call for a reason of its own.

    Attributes:
        status: That of its HTTP response, or None where there was none.
        retry_after: Seconds after which the same may be asked again, or None where that would not help.
    """

    def __init__(self, text: str, status: int | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class WeakReasoningError(LangNormError, RuntimeError):
    """All attempts at an answer were weak, and `on_exhausted="raise"` asked for an error.

    Attributes:
        message: The best of them; its `response_metadata["langnorm"]["attempts"]` has the figures of all.
    """

    def __init__(self, text: str, message: AIMessage | None = None) -> None:
        super().__init__(text)
        self.message = message


def closest(name: str, allowed: Iterable[str]) -> str:
    """Return a hint that names the allowed name closest to a misspelt one.

    Args:
        name: What was given. Case does not matter.
        allowed: The names that would have been accepted.

    Returns:
        A sentence to append to an error message, such as `` Did you mean `temperature`?`` with its
        leading space, or an empty string when nothing is close.
    """
    by_folded = {option.casefold(): option for option in allowed}
    matches = difflib.get_close_matches(str(name).casefold(), list(by_folded), n=1)
    return f" Did you mean `{by_folded[matches[0]]}`?" if matches else ""


def forget_locals(error: BaseException) -> None:
    """Clear the local variables of all frames that an error and those behind it have left.

    Its traceback still names the lines, but whoever keeps it keeps no tensors with it.
    """
    links, seen = [error], {id(error)}
    while links:
        link = links.pop()
        traceback.clear_frames(link.__traceback__)
        behind = [other for other in (link.__cause__, link.__context__) if other is not None and id(other) not in seen]
        seen.update(map(id, behind))
        links += behind

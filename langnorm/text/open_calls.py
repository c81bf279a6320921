"""A call while it is read: how it is told, when it ends, and what becomes of it if it breaks off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from langnorm.text.brackets import Brackets
from langnorm.text.call_notations import Notation
from langnorm.text.tool_calls import CallChunk, CallList, ToolCall, load_json


class OpenCall(Protocol):
    """Something between two marks, letter by letter."""

    @property
    def is_ended(self) -> bool:
        """Whether it has come to its own end."""

    @property
    def is_quoting(self) -> bool:
        """Whether a closing mark would be part of an argument."""

    @property
    def unread(self) -> str:
        """What ended and could not be read as a call, or nothing."""

    def feed(self, letter: str) -> Iterator[CallChunk]:
        """Yield what calls gain by a letter."""

    def end(self, mark: str | None) -> Iterator[CallChunk]:
        """End it before its own end: at a closing mark, or where the answer ends and there is none."""


class JsonCall:
    """A call whose name is known and whose arguments, in JSON, have begun with their first brace.

    It is told while it is written. What is not valid gets a bracket that fits nothing: half of the arguments must not
    pass for a whole call, which whoever joins the chunks would otherwise make of them.

    Args:
        calls: The calls of the answer; this one is added when it ends.
        name: Of the tool.
        call_id: As the model wrote it, or None.
        num_braces: How many braces are open around the arguments.
        opening: The mark before it.
    """

    unread = ""

    def __init__(
        self, calls: CallList, name: str, call_id: str | None = None, num_braces: int = 0, opening: str = ""
    ) -> None:
        self._calls = calls
        self._index = calls.next_index
        self._id = calls.new_id(call_id)
        self._name = name
        self._opening = opening
        self._num_braces = num_braces
        self._letters = ["{"]
        self._brackets = Brackets(opened="{")
        self._is_whole = False
        self._tail: list[str] = []  # between the arguments and the braces that close their call
        self.is_ended = False

    @property
    def is_quoting(self) -> bool:
        """Whether a closing mark would be part of an argument."""
        return not self.is_ended and self._brackets.is_quoting

    def begin(self) -> CallChunk:
        """Return the first chunk, with name and first brace."""
        return CallChunk(self._index, self._id, self._name, "{")

    def feed(self, letter: str) -> Iterator[CallChunk]:
        """Yield what calls gain by a letter."""
        is_closed = self._brackets.feed(letter)
        if self._is_whole:
            self._tail.append(letter)
            if is_closed:
                self.is_ended = True
                yield from self._end_tail()
            return
        self._letters.append(letter)
        yield CallChunk(self._index, None, None, letter)
        if is_closed:
            yield from self._close()
            self._is_whole, self.is_ended = True, not self._num_braces
            self._brackets = Brackets(opened="{" * self._num_braces)

    def end(self, mark: str | None) -> Iterator[CallChunk]:  # noqa: ARG002
        """End the call before its own end."""
        if self._is_whole:
            yield from self._end_tail()
        else:
            yield from self._add_invalid(self._brackets.spoiler(), "The call breaks off in its arguments.")

    def _close(self) -> Iterator[CallChunk]:
        raw = "".join(self._letters)
        try:
            arguments = load_json(raw)
        except ValueError as error:
            yield from self._add_invalid("]", f"The arguments are not JSON: {error}.")
        else:
            self._calls.finished.append(ToolCall(self._id, self._name, arguments, raw))

    def _add_invalid(self, spoiler: str, problem: str) -> Iterator[CallChunk]:
        raw = "".join(self._letters) + spoiler
        self._calls.finished.append(ToolCall(self._id, self._name, None, raw, problem))
        yield CallChunk(self._index, None, None, spoiler)

    def _end_tail(self) -> Iterator[CallChunk]:
        """Yield what follows the arguments and is neither braces nor keys that say nothing of the call."""
        tail = "".join(self._tail)
        if not tail.strip(" \t\r\n}"):
            return
        try:
            load_json('{"":' * self._num_braces + "0" + tail)
        except ValueError:
            yield self._calls.add_invalid(self._opening + tail)


class NotedCall:
    """A call in a notation that is read when it is whole.

    Args:
        calls: The calls of the answer.
        notation: What reads it.
        beginning: What came of it before the notation begins.
        opening: The mark before it.
    """

    def __init__(self, calls: CallList, notation: Notation, beginning: str, opening: str) -> None:
        self._calls = calls
        self._notation = notation
        self._beginning, self._opening = beginning, opening
        self._letters: list[str] = []
        self.is_ended = False
        self.unread = ""

    @property
    def is_quoting(self) -> bool:
        """Whether a closing mark would be part of an argument."""
        return self._notation.is_quoting

    def feed(self, letter: str) -> Iterator[CallChunk]:
        """Yield what calls gain by a letter."""
        self._letters.append(letter)
        if self._notation.feed(letter):
            self.is_ended = True
            yield from self._read(is_closed=False)

    def end(self, mark: str | None) -> Iterator[CallChunk]:
        """End the call before its own end."""
        yield from self._read(is_closed=mark is not None)
        if self.unread:
            yield self._calls.add_invalid(self._opening + self.unread + (mark or ""))

    def _read(self, *, is_closed: bool) -> Iterator[CallChunk]:
        text = "".join(self._letters)
        try:
            calls = self._notation.read(text, is_closed=is_closed)
        except ValueError:
            self.unread = self._beginning + text
        else:
            yield from (self._calls.add(name, arguments) for name, arguments in calls)


class Junk:
    """What stands between two marks and is no call.

    Args:
        calls: The calls of the answer.
        opening: The mark before it.
        text: The beginning of it.
    """

    is_ended = is_quoting = False
    unread = ""

    def __init__(self, calls: CallList, opening: str, text: str) -> None:
        self._calls = calls
        self._opening = opening
        self._texts = [text]

    def feed(self, letter: str) -> Iterator[CallChunk]:
        """Yield nothing: it is told when it ends."""
        self._texts.append(letter)
        return iter(())

    def end(self, mark: str | None) -> Iterator[CallChunk]:
        """Yield it as an invalid call, unless it is white space."""
        text = "".join(self._texts)
        if text.strip():
            yield self._calls.add_invalid(self._opening + text + (mark or ""))

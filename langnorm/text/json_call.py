"""A call whose arguments are JSON, told while they are written."""

from __future__ import annotations

from collections.abc import Iterator

from langnorm.text.brackets import Brackets
from langnorm.text.tool_calls import CallChunk, CallList, ToolCall, load_json


class JsonCall:
    """A call whose name is known and whose arguments have begun with their first brace.

    What is not valid gets a bracket that fits nothing: half of the arguments must not pass for a whole call, which
    whoever joins the chunks would otherwise make of them.

    Args:
        calls: The calls of the answer; this one is added when it ends.
        name: Of the tool.
        call_id: As the model wrote it, or None.
    """

    def __init__(self, calls: CallList, name: str, call_id: str | None = None) -> None:
        self.is_whole = False
        self._calls = calls
        self._index = calls.next_index
        self._id = calls.new_id(call_id)
        self._name = name
        self._letters = ["{"]
        self._brackets = Brackets(opened="{")

    @property
    def is_quoting(self) -> bool:
        """Whether a closing mark would be part of an argument."""
        return self._brackets.is_quoting

    def begin(self) -> CallChunk:
        """Return the first chunk, with name and first brace."""
        return CallChunk(self._index, self._id, self._name, "{")

    def feed(self, letter: str) -> Iterator[CallChunk]:
        """Yield what the call gains by a letter."""
        self._letters.append(letter)
        self.is_whole = self._brackets.feed(letter)
        yield CallChunk(self._index, None, None, letter)
        if self.is_whole:
            yield from self._close()

    def break_off(self) -> Iterator[CallChunk]:
        """End the call before its arguments are whole."""
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

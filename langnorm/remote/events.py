"""Reads server-sent events, whatever the parts in which they arrive."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

_END = b"[DONE]"


class EventReader:
    """Reads a stream of events of JSON.

    Attributes:
        is_ended: Whether the event has come that says that there are no more.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # parts of a line whose end has not come
        self.is_ended = False

    def feed(self, data: bytes) -> list[Any]:
        """Return the events that are whole now.

        Lines end with a line feed and nothing else: texts have other characters that some take for ends of lines.

        Raises:
            ValueError: An event is no JSON.
        """
        self._rest.append(data)
        if b"\n" not in data:  # an answer's norms are one line of megabytes, which is not to be joined at each part
            return []
        *lines, rest = b"".join(self._rest).split(b"\n")
        self._rest = [rest]
        events = []
        for line in lines:
            if not line.startswith(b"data:"):  # a comment, or an empty line
                continue
            content = line.removeprefix(b"data:").strip()
            if content == _END:
                self.is_ended = True
            elif content:
                events.append(from_json(content))
        return events

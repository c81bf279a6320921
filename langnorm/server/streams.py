"""Server-sent events, and work that lasts only as long as somebody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.types import Receive, Send

from langnorm.server.gate import Gate, stopping_error

Value = TypeVar("Value")

_PING_SECONDS = 15.0  # proxies cut what is silent for longer than some half a minute
_STUCK_SECONDS = 60.0
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


class ClientLeftError(Exception):
    """Nobody waits for the answer any more."""


class EventStream:
    """Sends events of JSON; the response begins with the first of them.

    Args:
        send: Sends a message of ASGI.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._sending_since: float | None = None
        self._time = asyncio.get_running_loop().time
        self._last = self._time()
        self.is_started = False

    async def send(self, event: Any) -> None:
        """Send an event."""
        await self._write(b"data: " + to_json(event) + b"\n\n")

    async def end(self) -> None:
        """Send what clients know as the end, and end the response."""
        await self._write(b"data: [DONE]\n\n", is_last=True)

    async def fail(self, event: Any) -> None:
        """Send an error as the last event, and end the response."""
        await self._write(b"data: " + to_json(event) + b"\n\n", is_last=True)

    async def watch(self) -> None:
        """Keep a silent stream alive; return when nobody reads it."""
        while self._sending_since is None or self._time() - self._sending_since < _STUCK_SECONDS:
            await asyncio.sleep(_PING_SECONDS)
            if self._sending_since is None and self._time() - self._last >= _PING_SECONDS:
                await self._write(b": still at work\n\n")

    async def _write(self, data: bytes, *, is_last: bool = False) -> None:
        self._last = self._sending_since = self._time()
        try:
            if not self.is_started:
                self.is_started = True
                await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})
        finally:
            self._sending_since = None


async def while_wanted(
    work: Coroutine[Any, Any, Value], receive: Receive, gate: Gate, stuck: Coroutine[Any, Any, None] | None = None
) -> Value:
    """Return what some work comes to; it is cancelled when nobody waits for it any more.

    Args:
        work: The work.
        receive: Receives a message of ASGI: after the body of a request, that the client has left.
        gate: Says when the server ends.
        stuck: Returns when nobody reads what is sent.

    Raises:
        ClientLeftError: The client has left.
        WireError: The server ends.
    """
    task = asyncio.ensure_future(work)
    left, ended = asyncio.ensure_future(_client_leaves(receive)), asyncio.ensure_future(gate.ended.wait())
    ends = {left, ended} | (set() if stuck is None else {asyncio.ensure_future(stuck)})
    try:
        await asyncio.wait({task, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise stopping_error() if ended.done() else ClientLeftError
    finally:
        for each in (task, *ends):
            each.cancel()
        await asyncio.gather(task, *ends, return_exceptions=True)  # nothing of it runs on


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

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
_MOST_HELD = 64 * 1024  # bytes
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


class ClientLeftError(Exception):
    """Nobody waits for the answer any more."""


class EventStream:
    """Sends events of JSON; the response begins with the first of them.

    An event is sent at once. Those that follow in the same turn of the event loop, as when an answer comes as a whole,
    go together at its end: each write is a call of the system, which costs more than all else of an event.

    Args:
        send: Sends a message of ASGI.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._sending_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._last = self._time()
        self._held = b""  # events of this turn, after the first
        self._is_first_of_turn = True
        self._writing: asyncio.Task[None] | None = None  # what was held
        self.is_started = False

    async def send(self, event: Any) -> None:
        """Send an event."""
        if self._writing:
            await self._writing
            self._writing = None
        data = b"data: " + to_json(event) + b"\n\n"
        if self._is_first_of_turn:
            self._is_first_of_turn = False
            self._loop.call_soon(self._end_turn)
            await self._write(data)
        else:
            self._held += data
            if len(self._held) >= _MOST_HELD:
                await self._write(self._take_held())

    async def end(self) -> None:
        """Send what clients know as the end, and end the response."""
        await self._write_last(b"data: [DONE]\n\n")

    async def fail(self, event: Any) -> None:
        """Send an error as the last event, and end the response."""
        await self._write_last(b"data: " + to_json(event) + b"\n\n")

    async def watch(self) -> None:
        """Keep a silent stream alive; return when nobody reads it."""
        while self._sending_since is None or self._time() - self._sending_since < _STUCK_SECONDS:
            await asyncio.sleep(_PING_SECONDS)
            if self._sending_since is None and self._time() - self._last >= _PING_SECONDS:
                await self._write(b": still at work\n\n")

    def _end_turn(self) -> None:
        self._is_first_of_turn = True
        if self._held:
            self._writing = self._loop.create_task(self._write(self._take_held()))

    def _take_held(self) -> bytes:
        held, self._held = self._held, b""
        return held

    async def _write_last(self, data: bytes) -> None:
        if self._writing:
            await self._writing
        await self._write(self._take_held() + data, is_last=True)

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

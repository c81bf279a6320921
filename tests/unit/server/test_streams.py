"""Events are sent as long as somebody reads them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from langnorm.server.gate import Gate
from langnorm.server.streams import ClientLeftError, EventStream, while_wanted


async def never() -> Any:
    """Waits for ever: the client neither reads nor leaves."""
    await asyncio.Event().wait()


async def test_a_client_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A while after the first event that does not get through; the work for it ends."""
    monkeypatch.setattr("langnorm.server.streams._PING_SECONDS", 0.01)
    monkeypatch.setattr("langnorm.server.streams._STUCK_SECONDS", 0.05)
    sent: list[Any] = []
    has_ended = False

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 3:
            await never()

    async def work() -> None:
        nonlocal has_ended
        try:
            while True:
                await stream.send({"a": 1})
        finally:
            has_ended = True

    stream = EventStream(send)
    with pytest.raises(ClientLeftError):
        await while_wanted(work(), never, Gate(1), stream.watch())
    assert has_ended
    assert [message["type"] for message in sent] == ["http.response.start", *["http.response.body"] * 3]


async def test_who_is_cancelled_cancels_the_work() -> None:
    """And waits for its end."""
    has_ended = asyncio.Event()

    async def work() -> None:
        try:
            await never()
        finally:
            has_ended.set()

    task = asyncio.ensure_future(while_wanted(work(), never, Gate(1)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert has_ended.is_set()

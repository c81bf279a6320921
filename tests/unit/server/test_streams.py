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
                await asyncio.sleep(0)
        finally:
            has_ended = True

    stream = EventStream(send)
    with pytest.raises(ClientLeftError):
        await while_wanted(work(), never, Gate(1), stream.watch())
    assert has_ended
    assert [message["type"] for message in sent] == ["http.response.start", *["http.response.body"] * 3]


async def test_events_of_one_turn_go_together() -> None:
    """After the first, which waits for nobody; all come, in order, in writes of a bounded size, before the end."""
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"])

    def numbers(data: bytes) -> list[int]:
        return [int(line.removeprefix(b"data: ")) for line in data.split(b"\n\n") if line.startswith(b"data: ")]

    stream = EventStream(send)
    for number in range(3):
        await stream.send(number)
    assert [numbers(data) for data in sent] == [[0]]
    await asyncio.sleep(0.01)
    assert [numbers(data) for data in sent] == [[0], [1, 2]]
    for number in range(3, 20_000):
        await stream.send(number)
    await stream.end()
    assert numbers(b"".join(sent).removesuffix(b"data: [DONE]\n\n")) == [*range(20_000)]
    assert len(sent) < 10
    assert max(map(len, sent)) < 66_000


@pytest.mark.parametrize("num_before", [0, 1, 2])
async def test_an_error_comes_after_what_was_said(num_before: int) -> None:
    """In the same turn or a later one."""
    for pause in (0, 0.01):
        sent: list[bytes] = []

        async def send(message: Any, sent: list[bytes] = sent) -> None:
            sent.append(message.get("body", b""))

        stream = EventStream(send)
        for number in range(num_before):
            await stream.send(number)
        await asyncio.sleep(pause)
        await stream.fail("error")
        said = b"".join(b"data: %d\n\n" % number for number in range(num_before))
        assert b"".join(sent) == said + b'data: "error"\n\n'


async def test_a_slow_reader_is_waited_for() -> None:
    """Also for what was held back: nothing comes before it."""
    may_go_on, sent = asyncio.Event(), []

    async def send(message: Any) -> None:
        if len(sent) == 2:
            await may_go_on.wait()
        sent.append(message.get("body", b""))

    stream = EventStream(send)
    await stream.send(1)
    await stream.send(2)
    await asyncio.sleep(0.01)  # from here on what was held is on its way
    later = asyncio.ensure_future(stream.send(3))
    await asyncio.sleep(0.01)
    assert not later.done()
    may_go_on.set()
    await later
    await stream.end()
    assert b"".join(sent) == b"data: 1\n\ndata: 2\n\ndata: 3\n\ndata: [DONE]\n\n"


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

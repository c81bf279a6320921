"""The wait for a request ends at its timeout, and errors that only look like one pass through."""

from __future__ import annotations

import asyncio
import queue
from types import SimpleNamespace

import pytest

from langnorm.engines import deadline as module
from langnorm.engines.deadline import Deadline


@pytest.fixture
def now(monkeypatch) -> SimpleNamespace:
    """Returns a clock that stands still until its `seconds` are set."""
    clock = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    return clock


def test_what_waits_is_given_the_seconds_left(now) -> None:
    """They grow fewer from the moment at which the deadline is made, and never fall below zero."""
    deadline = Deadline(5)
    seconds = []
    for now.seconds in (100.0, 102.0, 120.0):
        seconds.append(deadline.wait(lambda left: left))
    assert seconds == [5, 3, 0]
    assert Deadline(None).wait(lambda left: left) is None


@pytest.mark.parametrize("error", [TimeoutError("slow"), queue.Empty()], ids=["timeout", "empty"])
def test_an_error_at_the_end_names_the_option(now, error) -> None:
    """Whatever the wait raises when no time is left, the error says what to change."""
    deadline = Deadline(5)

    def get(left: float | None) -> None:
        now.seconds += left or 0
        raise error

    with pytest.raises(TimeoutError, match=r"longer than `timeout=5` seconds\. Raise `timeout` or lower `max_tokens`"):
        deadline.wait(get)


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize("timeout", [5, None])
async def test_a_timeout_of_the_model_passes_through(timeout) -> None:
    """While time is left, a `TimeoutError` is somebody else's."""
    deadline = Deadline(timeout)

    def get(_left: float | None) -> None:
        msg = "the device did not answer"
        raise TimeoutError(msg)

    with pytest.raises(TimeoutError, match="the device did not answer"):
        deadline.wait(get)
    with pytest.raises(TimeoutError, match="the device did not answer"):
        async with deadline.limit():
            get(None)


async def test_what_is_awaited_ends_at_the_deadline(now) -> None:
    """A task that would wait for ever is ended, with the same error."""
    deadline = Deadline(5)
    now.seconds += 5
    with pytest.raises(TimeoutError, match="longer than `timeout=5` seconds"):
        async with deadline.limit():
            await asyncio.Event().wait()

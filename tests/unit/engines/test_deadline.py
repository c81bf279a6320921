"""The wait for a request ends at its timeout, and errors that only look like one pass through."""

from __future__ import annotations

import asyncio
import queue
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Timer
from types import SimpleNamespace

import pytest

from langnorm.engines import deadline as module
from langnorm.engines import process_events
from langnorm.engines.deadline import Deadline


@pytest.fixture
def now(monkeypatch) -> SimpleNamespace:
    """Returns a clock that stands still until its `seconds` are set."""
    clock = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    return clock


def test_what_is_there_is_returned_whatever_the_time(now) -> None:
    """A result or an item that has come is handed out, also when no time is left."""
    deadline, future, items = Deadline(5), Future(), queue.SimpleQueue()
    future.set_result("done")
    items.put("item")
    now.seconds += 10
    assert (deadline.result(future), deadline.next_of(items)) == ("done", "item")


@pytest.mark.parametrize("is_main", [True, False])
def test_what_comes_later_is_waited_for(is_main) -> None:
    """With or without a timeout, on the main thread or another."""

    def waited(timeout: float | None) -> tuple[str, str]:
        future, items = Future(), queue.SimpleQueue()
        timers = [Timer(0.15, future.set_result, ["done"]), Timer(0.3, items.put, ["item"])]
        for timer in timers:
            timer.start()
        deadline = Deadline(timeout)
        return deadline.result(future), deadline.next_of(items)

    with ThreadPoolExecutor(1) as pool:
        for timeout in (None, 60):
            found = waited(timeout) if is_main else pool.submit(waited, timeout).result()
            assert found == ("done", "item")


def test_an_end_without_a_result_names_the_option() -> None:
    """When no time is left, the error says what to change."""
    for wait in (lambda: Deadline(0.02).result(Future()), lambda: Deadline(0.02).next_of(queue.SimpleQueue())):
        with pytest.raises(
            TimeoutError, match=r"longer than `timeout=0\.02` seconds\. Raise `timeout` or lower `max_tokens`"
        ):
            wait()


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize("timeout", [5, None])
async def test_a_timeout_of_the_model_passes_through(timeout) -> None:
    """A `TimeoutError` that the future comes to is somebody else's."""
    deadline, future = Deadline(timeout), Future()
    future.set_exception(TimeoutError("the device did not answer"))

    with pytest.raises(TimeoutError, match="the device did not answer"):
        deadline.result(future)
    with pytest.raises(TimeoutError, match="the device did not answer"):
        async with deadline.limit():
            future.result()


async def test_what_is_awaited_ends_at_the_deadline(now) -> None:
    """A task that would wait for ever is ended, with the same error."""
    deadline = Deadline(5)
    now.seconds += 5
    with pytest.raises(TimeoutError, match="longer than `timeout=5` seconds"):
        async with deadline.limit():
            await asyncio.Event().wait()


def test_at_the_exit_other_threads_get_nothing_any_more(monkeypatch) -> None:
    """Also where what they wait for is there: Python ends them a moment later. The main thread gets it."""
    monkeypatch.setattr(process_events, "_is_exiting", True)
    future = Future()
    future.set_result("done")

    async def awaited() -> str:
        async with Deadline(None).limit():
            return "done"

    async def awaited_for_a_while() -> str:
        return await asyncio.wait_for(awaited(), 0.05)

    assert (Deadline(5).result(future), asyncio.run(awaited_for_a_while())) == ("done", "done")
    with ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(lambda: Deadline(5).result(future)).exception(), SystemExit)
        assert isinstance(pool.submit(lambda: asyncio.run(awaited_for_a_while())).exception(), TimeoutError)

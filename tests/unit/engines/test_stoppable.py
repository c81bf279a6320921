"""What may never end runs as if it were called, and is stopped in time."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from functools import partial

import pytest

from langnorm.engines import stoppable
from langnorm.engines.deadline import Deadline
from langnorm.engines.stoppable import run_in_time
from tests.support.calls import wait_until

variable: ContextVar[str] = ContextVar("variable", default="outside")


def test_it_runs_in_the_context_of_its_caller() -> None:
    """Its result is returned, and it sees the caller's context variables."""
    token = variable.set("inside")
    try:
        assert run_in_time(variable.get, Deadline(60)) == "inside"
    finally:
        variable.reset(token)


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt(), SystemExit(3), TimeoutError("mine")])
def test_its_errors_are_raised(error) -> None:
    """Whatever it raises reaches the caller as it is."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run_in_time(fail, Deadline(60))
    assert caught.value is error


def test_it_is_stopped_in_time() -> None:
    """A loop without end is an error for the caller, and its thread is gone."""
    threads = []

    def loop() -> None:
        threads.append(threading.current_thread())
        while True:
            with suppress(Exception):  # as templates are run
                threads[:] = threads[:1]

    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"timeout=0\.05"):
        run_in_time(loop, Deadline(0.05))

    assert time.monotonic() - start < 30
    wait_until(lambda: not threads[0].is_alive())


def test_a_thread_is_used_again() -> None:
    """One call after the other takes the same few threads, also after errors, and none that was stopped."""
    numbers = set()

    def fail() -> None:
        numbers.add(threading.get_ident())
        raise LookupError

    for _ in range(20):
        numbers.add(run_in_time(threading.get_ident, Deadline(60)))
        with pytest.raises(LookupError):
            run_in_time(fail, Deadline(60))
        with pytest.raises(TimeoutError):
            run_in_time(threading.Event().wait, Deadline(0))
    assert len(numbers) <= 4
    assert threading.get_ident() not in numbers


def test_calls_at_once_never_meet() -> None:
    """Many at once, some of which are stopped just as they end: each gets its own result or its own timeout."""

    def work(number: int) -> int:
        for _ in range(200 * (number % 7)):
            pass
        return number

    def call(number: int) -> int | None:
        try:
            return run_in_time(partial(work, number), Deadline(1e-4 if number % 2 else 60.0))
        except TimeoutError:
            return None

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(call, range(600)))
    for number, result in enumerate(found):
        assert result == number or (result is None and number % 2)


def test_idle_threads_end(monkeypatch) -> None:
    """A thread that has had nothing to do for a while is gone."""
    monkeypatch.setattr(stoppable, "_IDLE_SECONDS", 0.01)
    monkeypatch.setattr(stoppable, "_idle", deque())
    thread = run_in_time(threading.current_thread, Deadline(60))
    wait_until(lambda: not thread.is_alive())
    assert not stoppable._idle

"""What may never end runs as if it were called, and is stopped in time."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from contextvars import ContextVar

import pytest

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
    num_rounds = [0]

    def loop() -> None:
        while True:
            with suppress(Exception):  # as templates are run
                num_rounds[0] += 1

    before, start = threading.active_count(), time.monotonic()
    with pytest.raises(TimeoutError, match=r"timeout=0\.05"):
        run_in_time(loop, Deadline(0.05))

    assert time.monotonic() - start < 30
    wait_until(lambda: threading.active_count() == before)
    assert num_rounds[0] > 0

"""Ends the wait for a request at its timeout, or when it is interrupted."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, wait
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from langnorm.engines.interrupts import is_interrupted
from langnorm.engines.process_events import is_ending_this_thread

Value = TypeVar("Value")

_SECONDS_BETWEEN_LOOKS = 0.05  # for an interrupt
_SECONDS_PER_THREAD = 0.002  # more threads look less often: together they must not take the model's time


class Deadline:
    """The moment at which the timeout of a request ends.

    A `TimeoutError` that the model raises by itself passes through unchanged.

    Args:
        timeout: Seconds, or None for no limit.
        start: From when they count, as `time.monotonic` has it; from now on if None.
    """

    def __init__(self, timeout: float | None, start: float | None = None) -> None:
        self._timeout = timeout
        self.start = time.monotonic() if start is None else start
        self._end = None if timeout is None else self.start + timeout

    @property
    def _seconds_left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def result(self, future: Future[Value]) -> Value:
        """Return what a future comes to, or raise its error.

        Raises:
            TimeoutError: No time is left.
            KeyboardInterrupt: Whoever waits for this thread was interrupted.
            SystemExit: Python is exiting, and this is not the main thread.
        """
        self._wait(lambda seconds: bool(wait([future], seconds).done))
        return future.result()

    def next_of(self, items: queue.SimpleQueue[Value]) -> Value:
        """Return the next item of a queue as soon as there is one.

        Raises:
            TimeoutError: No time is left.
            KeyboardInterrupt: Whoever waits for this thread was interrupted.
            SystemExit: Python is exiting, and this is not the main thread.
        """
        found: list[Value] = []

        def has_come(seconds: float | None) -> bool:
            with suppress(queue.Empty):
                found.append(items.get(timeout=seconds))
            return bool(found)

        self._wait(has_come)
        return found[0]

    def _wait(self, has_come: Callable[[float | None], bool]) -> None:
        """Return when `has_come` returns True; it waits for so many seconds at most, None for no limit."""
        # Python interrupts the main thread by itself.
        longest: float | None = None
        if threading.current_thread() is not threading.main_thread():
            longest = max(_SECONDS_BETWEEN_LOOKS, _SECONDS_PER_THREAD * threading.active_count())
        while True:
            if is_interrupted():
                raise KeyboardInterrupt
            left = self._seconds_left
            is_here = has_come(min((limit for limit in (left, longest) if limit is not None), default=None))
            if is_ending_this_thread():
                raise SystemExit  # by which threads end without a word
            if is_here:
                return
            if left == 0:
                raise self._build_error()

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Allow what is awaited in the `with` block no more than the seconds that are left.

        When Python is exiting, and this is not the main thread, the block never ends.

        Raises:
            TimeoutError: It took longer.
        """
        timeout = asyncio.timeout(self._seconds_left)
        try:
            async with timeout:
                yield
            if is_ending_this_thread():
                await asyncio.Event().wait()  # without an error, of which each task would say that nobody has read it
        except TimeoutError:
            if not timeout.expired():
                raise
            raise self._build_error() from None

    def _build_error(self) -> TimeoutError:
        return TimeoutError(
            f"The answer took longer than `timeout={self._timeout}` seconds. Raise `timeout` or lower `max_tokens`."
        )

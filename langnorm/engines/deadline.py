"""Ends the wait for a request at its timeout."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any


class Deadline:
    """The moment at which the timeout of a request ends, counted from when this is made.

    A `TimeoutError` that the model raises by itself passes through unchanged.

    Args:
        timeout: Seconds from now, or None for no limit.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    @property
    def _seconds_left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def wait(self, get: Callable[[float | None], Any]) -> Any:
        """Return what `get` returns, given the seconds that are left (None for no limit).

        Raises:
            TimeoutError: `get` raised it, or `queue.Empty`, when no time was left.
        """
        try:
            return get(self._seconds_left)
        except (TimeoutError, queue.Empty):
            if self._seconds_left != 0:
                raise
            raise self._build_error() from None

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Allow what is awaited in the `with` block no more than the seconds that are left.

        Raises:
            TimeoutError: It took longer.
        """
        timeout = asyncio.timeout(self._seconds_left)
        try:
            async with timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise self._build_error() from None

    def _build_error(self) -> TimeoutError:
        return TimeoutError(
            f"The answer took longer than `timeout={self._timeout}` seconds. Raise `timeout` or lower `max_tokens`."
        )

"""Lets requests in: so many at once, none when the server stops, and ends those that then still run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from langnorm.wire.errors import WireError

_RETRY_AFTER = 1  # seconds


def stopping_error() -> WireError:
    """Return what a request is told that comes, or still runs, when the server ends."""
    msg = "The server is being stopped. Ask again in a moment, or another one."
    return WireError(msg, status=503, code="server_stopping", retry_after=_RETRY_AFTER)


class Gate:
    """Counts the requests that run.

    Args:
        most: How many may run at once.

    Attributes:
        num_running: How many run.
        ended: Set when requests that still run are to be ended.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._is_stopping = False
        self.num_running = 0
        self.ended = asyncio.Event()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request for as long as the `with` block runs.

        Raises:
            WireError: There are too many, or the server is being stopped.
        """
        if self._is_stopping:
            raise stopping_error()
        if self.num_running >= self._most:
            msg = f"{self.num_running} requests run, and this server runs no more at once. Ask again in a moment."
            raise WireError(msg, status=429, code="too_many_requests", retry_after=_RETRY_AFTER)
        self.num_running += 1
        try:
            yield
        finally:
            self.num_running -= 1

    async def stop(self, grace: float) -> None:
        """Let nobody in any more, and end what runs after so many seconds, or as soon as nothing does."""
        self._is_stopping = True
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        while self.num_running and loop.time() < end:
            await asyncio.sleep(0.05)
        self.ended.set()

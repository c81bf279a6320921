"""Joins requests from any thread or task into batches and hands each one its own result.

The unit is a row: one sequence to generate. Rows are run in the order they came, as many at a time as they allow. A
worker thread runs them; it starts with the first row and ends when none is left, so an idle engine has no thread.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from langnorm.engines.base import Completion, Delta, Request

_LINGER_SECONDS = 0.02  # longest pause between the arrivals of two announced requests
_CLOSING_SECONDS = 10.0  # longest wait for the step that is under way when Python exits


@dataclass(eq=False, slots=True)
class Row:
    """One sequence to generate.

    Attributes:
        request: The request it belongs to.
        sample: Which of the request's `n` samples it is.
        seed: What its random numbers come from, together with `sample`.
        sink: Called on the worker's thread with what a streamed row gained.
        future: Its completion, or the error that ended it.
        is_cancelled: Set from any thread; the row then stops within one step.
    """

    request: Request
    sample: int
    seed: int
    sink: Callable[[Delta], None] | None = None
    future: Future[Completion] = field(default_factory=Future)
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Stop the row within one step, or before it starts."""
        self.is_cancelled = True


@dataclass(eq=False, slots=True)
class _Announcement:
    """How many requests somebody has announced that have not come yet."""

    num_missing: int


class Batcher:
    """A queue of rows in front of one model.

    Args:
        run: Generates a batch of rows and returns their completions in order. Rows that were cancelled meanwhile may
            have any completion.
        name: Of the worker thread.
    """

    def __init__(self, run: Callable[[Sequence[Row]], list[Completion]], name: str) -> None:
        self._run = run
        self._name = name
        self.reset()
        _batchers.add(self)

    def reset(self) -> None:
        """Forget all rows and the worker, without a word to either: in a forked process they are the parent's."""
        self._waiting: deque[Row] = deque()
        self._running: list[Row] = []
        self._announced: list[_Announcement] = []
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None

    def submit(self, rows: Sequence[Row]) -> None:
        """Queue rows; they are run in this order."""
        with self._changed:
            if self._worker is None or not self._worker.is_alive():
                # A daemon, so that leaving Python does not wait for an answer that nobody reads.
                worker = threading.Thread(target=self._work, name=self._name, daemon=True)
                worker.start()
                self._worker = worker
            self._waiting.extend(rows)
            for announcement in self._announced:
                if announcement.num_missing:
                    announcement.num_missing -= 1
                    break
            self._changed.notify_all()

    @contextmanager
    def expect(self, num_requests: int) -> Iterator[None]:
        """Announce `num_requests` calls of `submit`: the worker waits a moment for each, to run them together."""
        announcement = _Announcement(num_requests)
        with self._changed:
            self._announced.append(announcement)
        try:
            yield
        finally:
            with self._changed:
                # Requests that never came (a cache had the answer) must not slow others down.
                if announcement in self._announced:  # a forked process has forgotten it
                    self._announced.remove(announcement)
                self._changed.notify_all()

    def close(self) -> None:
        """Cancel all rows and wait for the worker's end, at most some seconds."""
        with self._changed:
            for row in (*self._running, *self._waiting):
                row.cancel()
            worker = self._worker
        if worker:
            worker.join(_CLOSING_SECONDS)

    def _work(self) -> None:
        while rows := self._next_batch():
            try:
                completed = list(zip(rows, self._run(rows), strict=True))
            except BaseException as error:  # noqa: BLE001 (it is handed to whoever waits)
                for row in rows:
                    row.future.set_exception(error)
            else:
                for row, completion in completed:
                    row.future.set_result(completion)

    def _next_batch(self) -> list[Row]:
        """Return the rows to run now; with none, the worker is over."""
        with self._changed:
            self._wait_for_expected()
            rows: list[Row] = []
            while self._waiting:
                row = self._waiting[0]
                if row.is_cancelled:
                    self._waiting.popleft().future.cancel()
                    continue
                limits = [row.request.max_batch_size, *(r.request.max_batch_size for r in rows)]
                if rows and len(rows) + 1 > min(limits):
                    break
                self._waiting.popleft()
                # From here on nobody but the worker ends the future: a task that is cancelled cancels what it awaits.
                if row.future.set_running_or_notify_cancel():
                    rows.append(row)
            self._running = rows
            if not rows:
                self._worker = None
            return rows

    def _wait_for_expected(self) -> None:
        while any(announcement.num_missing for announcement in self._announced):
            limit = min((row.request.max_batch_size for row in self._waiting), default=1)
            if len(self._waiting) >= limit or not self._changed.wait(_LINGER_SECONDS):
                return


_batchers: weakref.WeakSet[Batcher] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End what is still running: Python must not take its threads down inside a forward pass."""
    for batcher in list(_batchers):
        batcher.close()


def _reset_all() -> None:
    """Let a forked process begin anew: it has copies of locks that are held by threads it does not have."""
    for batcher in list(_batchers):
        batcher.reset()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_reset_all)

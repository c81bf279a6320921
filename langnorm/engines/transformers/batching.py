"""Joins requests from any thread or task into batches and hands each one its own result.

The unit is a row: one sequence to generate. Rows are run in the order they came, as many at a time as they allow. A
worker thread runs them; it starts with the first row and ends when none is left, so an idle engine has no thread.

Nobody waits for company that may never come: a batch begins at once, unless other requests are known to be on their
way. Rows that come while it has hardly begun join it: it begins anew with all of them, which costs it those few steps.
When a batch fails, its halves are run apart, and so on down to the row whose fault it is; when it does not fit into
memory, later batches are smaller for a while.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass

from langnorm.engines.requests import Completion
from langnorm.engines.transformers.sequence import PendingSequence
from langnorm.errors import MemoryLimitError

_LINGER_SECONDS = 0.02  # longest pause between the arrivals of two requests that belong together
_GATHERING_SECONDS = 0.5  # longest wait for all that join a batch
_MOST_RESTARTS = 3  # of a row, for the sake of others
_NUM_PATIENT = 8  # batches of a size that fits until a larger one is tried again
_CLOSING_SECONDS = 10.0  # longest wait for the step that is under way when Python exits


class BatchRestart(Exception):  # noqa: N818 (nothing went wrong)
    """Raised in a batch that shall begin anew together with rows that have come meanwhile."""


@dataclass(eq=False, slots=True)
class _Announcement:
    """How many requests somebody has announced that have not come yet."""

    num_missing: int


class Batcher:
    """A queue of rows in front of one model.

    Args:
        run: Generates a batch of rows and returns their completions in order. Rows that were cancelled meanwhile may
            have any completion. It may raise `BatchRestart` where `should_restart` says so, and `MemoryLimitError`.
        name: Of the worker thread.
    """

    def __init__(self, run: Callable[[Sequence[PendingSequence]], list[Completion]], name: str) -> None:
        self._run = run
        self._name = name
        self.reset()
        _batchers.add(self)

    def reset(self) -> None:
        """Forget all rows and the worker, without a word to either: in a forked process they are the parent's."""
        self._waiting: deque[PendingSequence] = deque()
        self._running: list[PendingSequence] = []
        self._announced: list[_Announcement] = []
        self._num_preparing = 0
        self._changed = threading.Condition()
        self._model_is_free = threading.Lock()
        self._worker: threading.Thread | None = None
        self._is_gathering = False  # rows that came with others may be followed by more
        self._is_mending = False  # what failed is run again in parts
        self._most_rows: int | None = None  # that fit into memory, as far as is known
        self._num_fitting = 0  # batches since then

    def submit(self, rows: Sequence[PendingSequence]) -> None:
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

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Announce that `submit` is called soon after the `with` block: rows that are there already wait for it."""
        with self._changed:
            self._num_preparing += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_preparing = max(0, self._num_preparing - 1)  # a forked process knows of none
                self._changed.notify_all()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep batches from running inside the `with` block, which begins when the one under way has ended."""
        with self._model_is_free:
            yield

    def close(self) -> None:
        """Cancel all rows and wait for the worker's end, at most some seconds."""
        with self._changed:
            for row in (*self._running, *self._waiting):
                row.cancel()
            worker = self._worker
        if worker:
            worker.join(_CLOSING_SECONDS)

    def should_restart(self) -> bool:
        """Return whether rows have come that the running batch has room for, and it may begin anew."""
        if self._is_mending or not self._waiting:
            return False
        running, first = self._running, self._waiting[0]  # nobody but the worker, which asks, takes it away
        if first.is_cancelled or any(row.has_sent or row.num_restarts >= _MOST_RESTARTS for row in running):
            return False
        return len(running) < self._limit([*running, first])

    def _work(self) -> None:
        while rows := self._next_batch():
            try:
                self._complete(rows)
            except BatchRestart:
                with self._changed:
                    begun = [row for row in rows if not row.future.done()]
                    for row in begun:
                        row.num_restarts += 1
                    self._waiting.extendleft(reversed(begun))
                    self._is_gathering = True

    def _complete(self, rows: list[PendingSequence]) -> None:
        """End all rows, with completions or errors."""
        is_too_large = is_one_too_large = False
        most_fitting = 0
        groups = deque([rows])
        while groups:
            group = [row for row in groups.popleft() if not _is_over(row)]
            if not group:
                continue
            error = self._attempt(group)
            if error is None:
                most_fitting = max(most_fitting, len(group))
            elif len(group) > 1 and isinstance(error, Exception):
                self._is_mending = True
                is_too_large |= isinstance(error, MemoryLimitError)
                middle = (len(group) + 1) // 2
                groups.extendleft([group[middle:], group[:middle]])
            else:
                is_one_too_large |= isinstance(error, MemoryLimitError)
                for row in group:
                    row.future.set_exception(error)
        self._is_mending = False
        # A row that does not fit alone says nothing of others.
        self._note_memory(most_fitting, is_too_large=is_too_large and not is_one_too_large)

    def _attempt(self, rows: list[PendingSequence]) -> BaseException | None:
        """Run rows and return what was raised; without an error they are ended."""
        for row in rows:
            row.begin()
        try:
            with self._model_is_free:
                completions = self._run(rows)
        except BatchRestart:
            raise
        except BaseException as error:  # noqa: BLE001 (it is handed to whoever waits)
            if len(rows) > 1:
                # The frames hold on to the memory that the halves need.
                error.__traceback__ = error.__context__ = None
            return error
        if len(completions) != len(rows):
            msg = f"The model answered {len(completions)} of {len(rows)} sequences."
            for row in rows:
                row.future.set_exception(RuntimeError(msg))
            return None
        for row, completion in zip(rows, completions, strict=True):
            row.finish(completion)
        return None

    def _note_memory(self, num_rows: int, *, is_too_large: bool) -> None:
        """Keep to the size that fitted, and try larger ones again later: long prompts do not come for ever."""
        if is_too_large:
            self._most_rows, self._num_fitting = max(1, num_rows), 0
        elif self._most_rows and num_rows >= self._most_rows:
            self._num_fitting += 1
            if self._num_fitting >= _NUM_PATIENT:
                self._most_rows, self._num_fitting = 2 * self._most_rows, 0

    def _limit(self, rows: Sequence[PendingSequence]) -> int:
        """Return how many rows may run together with all of these."""
        limits = [row.request.max_batch_size for row in rows]
        return min([*limits, self._most_rows] if self._most_rows else limits)

    def _next_batch(self) -> list[PendingSequence]:
        """Return the rows to run now; with none, the worker is over."""
        with self._changed:
            self._wait_for_expected()
            self._is_gathering = False
            rows: list[PendingSequence] = []
            while self._waiting:
                row = self._waiting[0]
                is_begun = row.future.running()  # it has been joined
                if _is_over(row) if is_begun else row.is_cancelled and row.future.cancel():
                    self._waiting.popleft()
                    continue
                if rows and len(rows) >= self._limit([*rows, row]):
                    break
                self._waiting.popleft()
                # From here on nobody but the worker ends the future: a task that is cancelled cancels what it awaits.
                if is_begun or row.future.set_running_or_notify_cancel():
                    rows.append(row)
            self._running = rows
            if not rows:
                self._worker = None
            return rows

    def _wait_for_expected(self) -> None:
        """Wait for announced requests, and for those that come with others; not long for any, and for all of these."""
        end = time.monotonic() + _GATHERING_SECONDS
        while True:
            is_in_time = time.monotonic() < end
            # A request has hardly been prepared when it is submitted, and more are likely to follow.
            self._is_gathering |= self._num_preparing > 0
            is_expected = any(announcement.num_missing for announcement in self._announced)
            if not is_expected and not (self._is_gathering and is_in_time):
                return
            limit = self._limit(self._waiting) if self._waiting else 1
            if len(self._waiting) >= limit:
                return
            has_changed = self._changed.wait(_LINGER_SECONDS)
            if not has_changed and not (self._num_preparing and is_in_time):
                return


def _is_over(row: PendingSequence) -> bool:
    """Return whether a row that was begun is cancelled, and end it then."""
    if row.is_cancelled and not row.future.done():
        row.future.set_exception(CancelledError())
    return row.is_cancelled


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

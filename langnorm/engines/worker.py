"""The one thread that runs a model. It lives as long as there is something to do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from langnorm.engines import process_events

T = TypeVar("T")


class Worker:
    """Takes steps, one after the other.

    Args:
        step: Called as long as `is_busy`; it ends its own errors.
        is_busy: Whether there is something to do; called with the lock held.
        name: Of the thread.
        library: What runs the model, as errors call it.
    """

    def __init__(self, step: Callable[[], None], is_busy: Callable[[], bool], name: str, library: str) -> None:
        self._step, self._is_busy, self._name, self._library = step, is_busy, name, library
        self._is_forked = False
        self._clear()

    def _clear(self) -> None:
        self.lock = threading.Lock()
        """To be held by whoever adds something to do."""
        self._works: deque[Callable[[], None]] = deque()  # to be called between steps
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def reset(self) -> None:
        """Take nothing more: in a forked process, the threads of the library are the parent's."""
        self._clear()
        self._is_forked = True

    @property
    def is_running(self) -> bool:
        """Whether there is a thread; it begins and ends with the lock held."""
        return self._thread is not None

    def wake(self, add: Callable[[], None]) -> None:
        """Add something to do, and see that there is a thread.

        Raises:
            RuntimeError: Python is exiting, or this is a fork of the process that loaded the model.
        """
        if self._is_forked:
            msg = (
                f"A model of {self._library} cannot be used in a fork of the process that loaded it. Load it there: "
                "`langnorm.unload()`, or start processes with `multiprocessing.get_context('spawn')`."
            )
            raise RuntimeError(msg)
        with self.lock:
            if self._is_closed:
                msg = "Python is exiting, so no answer can be generated any more."
                raise RuntimeError(msg)
            add()
            if self._thread is None or not self._thread.is_alive():
                # A daemon, so that leaving Python does not wait for an answer that nobody reads.
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread

    def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, which is called by the thread between two steps; errors as for `wake`."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001
                future.set_exception(error)

        self.wake(lambda: self._works.append(run))
        return future.result()

    def close(self) -> None:
        """Take nothing more; to be called with the lock held."""
        self._is_closed = True

    def join(self) -> None:
        """Wait for the end of the thread."""
        if thread := self._thread:
            process_events.wait_for_end(thread)

    def _run(self) -> None:
        while True:
            with self.lock:
                if not self._works and not self._is_busy():
                    self._thread = None
                    return
            while self._works:
                self._works.popleft()()
            if self._is_busy():
                self._step()

"""Runs Python code that may never end, such as the chat template of a stranger, and stops it in time.

It runs on threads that are kept for a while: a server does this for each request, and would start one each time.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

from langnorm.engines.deadline import Deadline

Value = TypeVar("Value")

_NUM_ATTEMPTS = 10
_ATTEMPT_SECONDS = 0.05
_IDLE_SECONDS = 5.0


class _Stopped(SystemExit):
    """Raised in a thread to end it: nothing catches it on the way, and threads end by it without a word."""


class _Thread:
    """A thread that does one job after another, until none comes for a while or one had to be stopped."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._job: Callable[[], None] | None = None
        self._is_stopped, self._has_ended = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="to be ended in time", daemon=True)
        self._thread.start()

    def start(self, job: Callable[[], None]) -> None:
        """Do a job, whose errors are its own; the thread is idle."""
        self._job = job
        self._jobs.put(job)

    def stop(self, job: Callable[[], None]) -> None:
        """End the thread at its next line of Python if it still does a job, or give up when it has none for a while."""
        number, error = ctypes.c_ulong(self._thread.ident or 0), ctypes.py_object(_Stopped)
        with self._lock:
            if self._job is not job:
                return  # it has ended by itself, and its thread may do the next one
            self._is_stopped.set()
        for _ in range(_NUM_ATTEMPTS):  # code that is called back from C may swallow one
            with self._lock:
                if self._has_ended:
                    return
                ctypes.pythonapi.PyThreadState_SetAsyncExc(number, error)
            self._thread.join(_ATTEMPT_SECONDS)

    def _run(self) -> None:
        while not self._has_ended:
            try:
                self._do_jobs()
                with self._lock:  # from here on nobody stops it, so that Python's own end of a thread is not disturbed
                    self._has_ended = True
            except _Stopped:
                pass

    def _do_jobs(self) -> None:
        while not self._is_stopped.is_set():
            try:
                job = self._jobs.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with suppress(ValueError):  # somebody has just taken it, and has a job for it
                    _idle.remove(self)
                    return
                continue
            job()
            with self._lock:
                if self._is_stopped.is_set():
                    return
                self._job = None
            del job  # and what it holds
            _idle.append(self)


_idle: deque[_Thread] = deque()
"""Threads without a job; those used last, at the right, are used next, so that the others can end."""


def run_in_time(function: Callable[[], Value], deadline: Deadline) -> Value:
    """Return what a function returns; it runs on another thread, in a copy of this context.

    When it is not done in time, that thread is stopped at its next line of Python: not inside a call of C, whose end
    nobody waits for here.

    Raises:
        TimeoutError: No time is left.
        KeyboardInterrupt: Whoever waits for this thread was interrupted.
    """
    future: Future[Value] = Future()
    context = copy_context()

    def job() -> None:
        try:
            future.set_result(context.run(function))
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 (it is raised where the function was called)
            future.set_exception(error)

    thread = _take_thread()
    thread.start(job)
    try:
        return deadline.result(future)
    finally:
        if not future.done():
            thread.stop(job)


def _take_thread() -> _Thread:
    try:
        return _idle.pop()
    except IndexError:
        return _Thread()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_idle.clear)  # the threads stay behind in the parent

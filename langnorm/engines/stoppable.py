"""Runs Python code that may never end, such as the chat template of a stranger, and stops it in time."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

from langnorm.engines.deadline import Deadline

Value = TypeVar("Value")

_NUM_ATTEMPTS = 10
_ATTEMPT_SECONDS = 0.05


class _Stopped(SystemExit):
    """Raised in a thread to end it: nothing catches it on the way, and threads end by it without a word."""


def run_in_time(function: Callable[[], Value], deadline: Deadline) -> Value:
    """Return what a function returns; it runs on a thread of its own, in a copy of this context.

    When it is not done in time, that thread is stopped at its next line of Python: not inside a call of C, whose end
    nobody waits for here.

    Raises:
        TimeoutError: No time is left.
        KeyboardInterrupt: Whoever waits for this thread was interrupted.
    """
    future: Future[Value] = Future()
    context = copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(function))
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 (it is raised where the function was called)
            future.set_exception(error)

    thread = threading.Thread(target=work, name=f"{threading.current_thread().name} in time", daemon=True)
    thread.start()
    try:
        return deadline.result(future)
    finally:
        if not future.done():
            _stop(thread)


def _stop(thread: threading.Thread) -> None:
    """End a thread at its next line of Python, or give up when it has none for a while."""
    for _ in range(_NUM_ATTEMPTS):  # code that is called back from C may swallow one
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Stopped))
        thread.join(_ATTEMPT_SECONDS)
        if not thread.is_alive():
            return

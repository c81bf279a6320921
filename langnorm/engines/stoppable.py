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

    thread = threading.Thread(target=work, name=f"{threading.current_thread().name} in time")
    thread.start()
    try:
        return deadline.result(future)
    finally:
        if not future.done():
            ident = ctypes.c_ulong(thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(_Stopped))

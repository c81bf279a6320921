"""What becomes of queues when Python exits and when the process is forked."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import weakref
from typing import Protocol

from langnorm.engines.interrupts import frames_of

_WAIT_SECONDS = 0.1
_SECONDS_TO_LEAVE = 1.0
_SECONDS_BETWEEN_LOOKS = 0.01  # in which a thread that has just been woken comes further
_MODULES_THAT_WAIT = (
    *("threading", "queue", "selectors", "concurrent", "asyncio", "socket", "ssl", "httpcore"),
    *("langnorm.engines.deadline", "langnorm.engines.stoppable"),  # which call no others while they wait
)


class Queue(Protocol):
    """A queue with a worker thread."""

    def close(self) -> None:
        """Cancel all that is in it, and take no more."""

    def join(self) -> None:
        """Wait for the end of the worker."""

    def reset(self) -> None:
        """Forget all that is in it, and the worker."""


_is_exiting = False
_queues: weakref.WeakSet[Queue] = weakref.WeakSet()
_model_locks: weakref.WeakKeyDictionary[object, threading.Lock] = weakref.WeakKeyDictionary()


def watch(queue: Queue) -> None:
    """Close a queue when Python exits, and reset it in a forked process, as long as somebody holds it."""
    _queues.add(queue)


def lock_of(model: object) -> threading.Lock:
    """Return the lock that all queues in front of a model share; after a fork it is another one."""
    return _model_locks.setdefault(model, threading.Lock())


def wait_for_end(thread: threading.Thread) -> None:
    """Wait for the end of a thread, and see a `KeyboardInterrupt` meanwhile.

    In short pieces: a signal that the system hands to another thread does not wake this one.
    """
    while thread.is_alive():
        thread.join(_WAIT_SECONDS)


def is_ending_this_thread() -> bool:
    """Return whether Python is exiting, and so ends this thread in a moment: on any thread but the main one."""
    return _is_exiting and threading.current_thread() is not threading.main_thread()


@atexit.register
def _close_at_exit() -> None:
    """End what is still running: Python aborts when it ends a thread inside a forward pass, or in C++ at all."""
    global _is_exiting
    _is_exiting = True
    queues = list(_queues)
    try:
        for queue in queues:
            queue.close()
        for queue in queues:
            queue.join()  # ends within one decode step, or one layer of a prefill
        _wait_for_threads()
    except KeyboardInterrupt:  # the user will not wait for that
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + signal.SIGINT)


def _wait_for_threads() -> None:
    """Wait until no other thread computes for langnorm, but not long: what they compute of an answer is done soon."""
    end = time.monotonic() + _SECONDS_TO_LEAVE
    num_looks_without = 0
    while threading.active_count() > 1:
        num_looks_without = 0 if any(map(_is_computing, threading.enumerate())) else num_looks_without + 1
        if num_looks_without == 2 or time.monotonic() > end:  # one may have been about to begin at the first look
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _is_computing(thread: threading.Thread) -> bool:
    """Return whether langnorm runs on a thread, or has called what runs there, and it is not just waiting."""
    if thread is threading.current_thread():
        return False
    modules = [str(frame.f_globals.get("__name__")) for frame in frames_of(thread)]
    is_ours = any(module.split(".")[0] == "langnorm" for module in modules)
    return is_ours and not modules[0].startswith(_MODULES_THAT_WAIT)


def _reset_after_fork() -> None:
    """Give a forked process empty queues: its copies of the locks may be held by threads that it does not have."""
    if torch := sys.modules.get("torch"):
        # OpenMP's threads stay behind in the parent, and whatever is computed on several would wait for them.
        torch.set_num_threads(1)
    _model_locks.clear()
    for queue in list(_queues):
        queue.reset()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_reset_after_fork)

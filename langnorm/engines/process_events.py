"""What becomes of queues when Python exits and when the process is forked."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import weakref
from typing import Protocol

_WAIT_SECONDS = 0.1


class Queue(Protocol):
    """A queue with a worker thread."""

    def close(self) -> None:
        """Cancel all that is in it, and take no more."""

    def join(self) -> None:
        """Wait for the end of the worker."""

    def reset(self) -> None:
        """Forget all that is in it, and the worker."""


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


@atexit.register
def _close_at_exit() -> None:
    """End what is still running: a thread that Python ends inside a forward pass aborts the process."""
    queues = list(_queues)
    try:
        for queue in queues:
            queue.close()
        for queue in queues:
            queue.join()  # ends within one decode step, or one layer of a prefill
    except KeyboardInterrupt:  # the user will not wait for that
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + signal.SIGINT)


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

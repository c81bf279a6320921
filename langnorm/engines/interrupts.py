"""Whether whoever waits for the call on this thread was interrupted.

`KeyboardInterrupt` is raised in the main thread alone. When it leaves the `with` block of a pool, as there is one in
LangChain's `batch` and `RunnableParallel`, Python first waits for the calls that run on the pool's threads, and nothing
tells these that nobody will read what they return. So a call that waits on such a thread has to look for itself.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from types import FrameType
from typing import Any

_SECONDS_TO_NEXT_LOOK = 0.04  # a look at the frames takes longer the more threads there are: one is enough for all
_last_look = 0.0  # that found no interrupt, as `time.monotonic` has it


def is_interrupted() -> bool:
    """Return whether the main thread, interrupted, waits for the end of a pool that this thread works for.

    That is a pool whose `with` block it leaves by `KeyboardInterrupt`, or that of the event loop which it closes for
    the same reason; or a pool that a thread of these has opened.
    """
    global _last_look
    now = time.monotonic()
    if threading.current_thread() is threading.main_thread() or 0 <= now - _last_look < _SECONDS_TO_NEXT_LOOK:
        return False
    pools = list(_pools_left())
    if not pools:
        _last_look = now
    seen: list[ThreadPoolExecutor] = []
    while pools:
        pool = pools.pop()
        if pool in seen:
            continue
        seen.append(pool)
        # Not public, but the same in all versions of Python so far.
        threads: set[threading.Thread] = getattr(pool, "_threads", set())
        if threading.current_thread() in threads:
            return True
        for thread in list(threads):
            for frame in frames_of(thread):
                pools += [value for value in frame.f_locals.values() if isinstance(value, ThreadPoolExecutor)]
    return False


def frames_of(thread: threading.Thread) -> Iterator[FrameType]:
    """Yield the frames that a thread is in, innermost first.

    Nothing keeps those of other threads, our own among them, and what is in them.
    """
    frame = sys._current_frames().get(thread.ident or 0)
    while frame:
        yield frame
        frame = frame.f_back


def _pools_left() -> Iterator[ThreadPoolExecutor]:
    """Yield the pools for whose end the main thread waits because of a `KeyboardInterrupt`."""
    for caller in frames_of(threading.main_thread()):
        if caller.f_code not in (Executor.__exit__.__code__, asyncio.Runner.__exit__.__code__):
            continue
        error, owner = caller.f_locals.get("exc_type"), caller.f_locals.get("self")
        pool: Any = owner if isinstance(owner, Executor) else _default_pool(owner)
        if error and issubclass(error, KeyboardInterrupt) and isinstance(pool, ThreadPoolExecutor):
            yield pool


def _default_pool(runner: Any) -> Any:
    """Return the pool in which an event loop runs what would block it, if it has one."""
    return getattr(getattr(runner, "_loop", None), "_default_executor", None)

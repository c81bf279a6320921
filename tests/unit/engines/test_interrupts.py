"""Looking for an interrupt costs nothing: what a waiting thread sees of others it does not keep."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

from langnorm.engines.interrupts import is_interrupted


class Tensor:
    """Stands for something large in a local variable."""


def test_frames_are_not_kept() -> None:
    """What was in the frames of other threads, and in those of the thread that looks, goes when they end."""
    kept: list[weakref.ref[Tensor]] = []
    has_begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        large = Tensor()
        kept.append(weakref.ref(large))
        has_begun.set()
        may_end.wait(30)

    def look() -> bool:
        large = Tensor()
        kept.append(weakref.ref(large))
        return is_interrupted()

    gc.collect()
    gc.disable()
    try:
        with ThreadPoolExecutor(2) as pool:
            worker = pool.submit(work)
            assert has_begun.wait(30)
            assert [pool.submit(look).result() for _ in range(3)] == [False] * 3
            may_end.set()
            worker.result()
        assert [large() for large in kept] == [None] * 4
    finally:
        gc.enable()

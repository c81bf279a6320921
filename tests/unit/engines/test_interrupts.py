"""Looking for an interrupt costs nothing: what a waiting thread sees of others it does not keep."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from langnorm.engines import interrupts
from langnorm.engines.deadline import Deadline
from langnorm.engines.interrupts import is_interrupted


class Tensor:
    """Stands for something large in a local variable."""


def test_frames_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
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
        monkeypatch.setattr(interrupts, "_last_look", 0.0)
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


def test_many_waiting_threads_look_no_more_often_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look goes through the frames of all threads: one is enough for all, or hundreds leave the model no time."""
    looks = []
    frames = sys._current_frames
    monkeypatch.setattr(sys, "_current_frames", lambda: looks.append(time.monotonic()) or frames())
    future: Future[int] = Future()
    with ThreadPoolExecutor(200) as pool:
        answers = [pool.submit(Deadline(None).result, future) for _ in range(200)]
        time.sleep(1)
        future.set_result(3)
        assert [answer.result() for answer in answers] == [3] * 200
    seconds = looks[-1] - looks[0]
    assert 2 <= len(looks) <= 2 + 2 * seconds / interrupts._SECONDS_TO_NEXT_LOOK

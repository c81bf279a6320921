"""Memory that a batch has freed goes back to the system when the batch ends."""

from __future__ import annotations

import threading

import pytest
import torch

from langnorm.engines.transformers import free_memory
from langnorm.engines.transformers.free_memory import give_back_memory


def holed_heap() -> list[torch.Tensor]:
    """Returns tensors between which as many others were freed."""
    tensors = [torch.ones(25_000) for _ in range(3_000)]  # 100 kB each: too small to be mapped on their own
    return tensors[::2]


@pytest.mark.skipif(free_memory._glibc() is None, reason="the C library is another one")
def test_freed_memory_is_given_back() -> None:
    """What a thread has freed between what it keeps is no longer resident."""
    from benchmarks.memory import resident_megabytes

    before, kept = resident_megabytes()[0], []
    thread = threading.Thread(target=lambda: kept.extend(holed_heap()))
    thread.start()
    thread.join()
    with_holes = resident_megabytes()[0]

    give_back_memory()

    assert with_holes - before > 250
    assert with_holes - resident_megabytes()[0] > 100
    assert len(kept) == 1_500


def test_little_is_left_where_it_is(monkeypatch) -> None:
    """A small model's batches are not slowed down by it, and other C libraries are left alone."""
    trimmed = []

    class Libc:
        malloc_trim = trimmed.append

        def __init__(self, free: int, used: int) -> None:
            self.info = free_memory._MallocInfo(fordblks=free, uordblks=used)

        def mallinfo2(self) -> object:
            return self.info

    mega = 2**20
    for libc in (None, Libc(60 * mega, 100 * mega), Libc(100 * mega, 1000 * mega)):
        monkeypatch.setattr(free_memory, "_glibc", lambda libc=libc: libc)
        give_back_memory()
    assert trimmed == []
    monkeypatch.setattr(free_memory, "_glibc", lambda: Libc(200 * mega, 1000 * mega))
    give_back_memory()
    assert trimmed == [0]

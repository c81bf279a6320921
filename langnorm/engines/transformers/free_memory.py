"""Gives memory that batches have freed back to the system, after the prompts of a batch and at its end.

The allocator of glibc keeps freed memory for the thread that had it, in one of several arenas, and a queue's worker is
a new thread whenever there is work again. So a process would come to hold a batch's worth of memory in each arena.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

_LEAST_BYTES = 64 * 2**20  # not worth the time below


class _MallocInfo(ctypes.Structure):
    """What `mallinfo2` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                     "keepcost")
    ]  # fmt: skip


def give_back_memory() -> None:
    """Give freed memory back, where the allocator holds much of it: an eighth of what is in use. Else do nothing."""
    if libc := _glibc():
        info = libc.mallinfo2()
        if info.fordblks > max(_LEAST_BYTES, (info.uordblks + info.hblkhd) // 8):
            libc.malloc_trim(0)


@cache
def _glibc() -> Any:
    """Return the C library if it is one of glibc, else None."""
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not (hasattr(libc, "malloc_trim") and hasattr(libc, "mallinfo2")):
        return None
    libc.mallinfo2.restype = _MallocInfo
    return libc

"""One snapshot of each model for all requests inside a `with` block."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar

Snapshot = TypeVar("Snapshot", covariant=True)


class SnapshotSource(Hashable, Protocol, Generic[Snapshot]):
    """What snapshots are taken of."""

    def take_snapshot(self) -> Snapshot:
        """Return what there is as of now."""


class _FrozenSnapshots:
    """The first snapshot of each source inside a `with` block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshots: dict[SnapshotSource[Any], Any] = {}

    def of(self, source: SnapshotSource[Snapshot]) -> Snapshot:
        with self._lock:
            if source not in self._snapshots:
                self._snapshots[source] = source.take_snapshot()
            snapshot: Snapshot = self._snapshots[source]
            return snapshot


_frozen: ContextVar[_FrozenSnapshots | None] = ContextVar("frozen", default=None)


@contextmanager
def frozen_snapshots() -> Iterator[None]:
    """Give all requests of this context, its threads and its tasks the same snapshot of a model: the first one's."""
    token = _frozen.set(_FrozenSnapshots())
    try:
        yield
    finally:
        _frozen.reset(token)


def snapshot_of(source: SnapshotSource[Snapshot]) -> Snapshot:
    """Return a snapshot as of now, or the first one inside the enclosing `frozen_snapshots`."""
    frozen = _frozen.get()
    return frozen.of(source) if frozen else source.take_snapshot()

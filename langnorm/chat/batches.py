"""The calls of one `batch`: announced to their engine together, and compared with the same norms.

Nothing is loaded for that: a model whose answers are all in a cache is never needed, and where one cannot be loaded,
each input has that error for itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from langnorm.engines.base import Engine
from langnorm.norms.frozen import frozen_snapshots


class _Batch:
    """The calls of one `batch`, which run on threads or tasks of their own.

    Args:
        chat: The chat model that makes them.
        num_expected: For how many of them the engine waits.
    """

    def __init__(self, chat: object, num_expected: int) -> None:
        self.chat = chat
        self._num_expected = num_expected
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._announcement = ExitStack()

    def announce(self, engine: Engine) -> None:
        """Announce the calls to the engine, if none has yet done so."""
        with self._lock:
            if self._engine is None:
                self._engine = engine
                self._announcement.enter_context(engine.expect(self._num_expected))

    def close(self) -> None:
        """Take the announcement back."""
        self._announcement.close()


_batch: ContextVar[_Batch | None] = ContextVar("batch", default=None)


@contextmanager
def batch_of_calls(chat: object, num_calls: int, num_expected: int | None = None) -> Iterator[None]:
    """Take what a chat model is asked inside the `with` block, in its threads and tasks, for the calls of one batch.

    Args:
        chat: The chat model.
        num_calls: How many there are.
        num_expected: For how many of them the engine waits, so that they are run together; by default all.
    """
    if num_calls < 2:
        yield
        return
    batch = _Batch(chat, num_calls if num_expected is None else num_expected)
    token = _batch.set(batch)
    try:
        with frozen_snapshots():
            yield
    finally:
        _batch.reset(token)
        batch.close()


def announce_batch(chat: object, engine: Engine) -> None:
    """Announce to an engine, which is about to get a call of a chat model, the others of its batch, if it is in one."""
    batch = _batch.get()
    if batch and batch.chat is chat:
        batch.announce(engine)


def most_together(options: Mapping[str, Any], otherwise: int) -> int:
    """Return how many sequences calls with these options may run together, or what else they do.

    What is no such number is refused by each of the calls.
    """
    given = options.get("max_batch_size")
    return given if isinstance(given, int) and given > 0 else otherwise

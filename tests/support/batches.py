"""A stand-in for a model behind a queue, and short ways to fill the queue."""

from __future__ import annotations

import threading

from langnorm.engines.requests import Completion
from langnorm.engines.sequence import PendingSequence
from langnorm.engines.transformers.batching import Batcher
from tests.support.calls import ask

NAME = "batcher under test"

HANG_SECONDS = 60
"""A result that takes longer never comes, however busy the machine is."""

ENDLESS_SECONDS = 10 * HANG_SECONDS
"""Whoever waits this long where nobody should wait has hung."""


class Runner:
    """Stands in for a model: answers a sequence with the number in its prompt, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.error: BaseException | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.batcher = Batcher(self.run, name=NAME)

    def run(self, sequences) -> list[Completion]:
        """Returns completions whose only token is the sequence's number."""
        self.batches.append([number(sequence) for sequence in sequences])
        assert self.may_go_on.wait(HANG_SECONDS)
        if self.error is not None:
            raise self.error
        return [Completion([number(sequence)], [""], "stop") for sequence in sequences]

    def submit(self, *numbers: int, max_batch_size: int = 16) -> list[PendingSequence]:
        """Queues sequences with these numbers in one call."""
        made = sequences(*numbers, max_batch_size=max_batch_size)
        self.batcher.submit(made)
        return made


def sequences(*numbers: int, max_batch_size: int = 16) -> list[PendingSequence]:
    """Returns a sequence per number."""
    return [PendingSequence(ask((n,), max_batch_size=max_batch_size), sample=0, seed=0) for n in numbers]


def number(sequence: PendingSequence) -> int:
    """Returns the number that a sequence was made with."""
    return sequence.request.prompt_ids[0]


def result(sequence: PendingSequence) -> int:
    """Returns the number that a sequence was answered with, or raises its error."""
    return sequence.future.result(HANG_SECONDS).token_ids[0]


def has_worker() -> bool:
    """Returns whether a worker thread is alive."""
    return any(thread.name == NAME for thread in threading.enumerate())

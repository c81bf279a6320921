"""A batch that fails is run in parts, and one that others join is restarted: the queue alone, without a model."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from langnorm.engines.requests import Completion, Delta
from langnorm.engines.sequence import PendingSequence
from langnorm.engines.transformers.batching import Batcher, BatchRestart
from tests.support.calls import (
    ask,
    wait_until,
)


@pytest.mark.parametrize("num_sequences", [2, 4])
def test_a_stream_that_comes_out_otherwise_is_an_error(num_sequences: int) -> None:
    """What was read cannot be unsaid: the reader is told instead of getting a mixture, also if that run fails too."""
    read: list[Delta] = []

    def run(sequences: list[PendingSequence]) -> list[Completion]:
        for sequence in sequences:
            sequence.send(Delta(((0, "ab" if len(sequences) == num_sequences else "ax"), (1, "c"))))
        if len(sequences) > 1:
            raise MemoryError
        return [Completion([0], ["ax"], "stop") for _ in sequences]

    batcher = Batcher(run, name="batcher that strays")
    made = [PendingSequence(ask((1,)), 0, 0, read.append) for _ in range(num_sequences)]
    batcher.submit(made)

    for sequence in made:
        with pytest.raises(RuntimeError, match="came out otherwise.*Ask again"):
            sequence.future.result(60)
    assert [piece for delta in read for piece in delta.pieces] == [(0, "ab"), (1, "c")] * num_sequences


def test_norms_of_a_stream_that_is_run_again_come_once() -> None:
    """What an earlier run has sent is left out, wherever the deltas of the two are cut."""
    read: list[Delta] = []
    rows = [(i, [float(i)]) for i in range(5)]

    def run(sequences: list[PendingSequence]) -> list[Completion]:
        cuts = (0, 2, 3) if len(sequences) > 1 else (0, 1, 4, 5)
        for sequence in sequences:
            for start, end in pairwise(cuts):
                sequence.send(Delta((), norms=tuple(rows[start:end])))
        if len(sequences) > 1:
            raise MemoryError
        return [Completion([0], ["a"], "stop") for _ in sequences]

    made = [PendingSequence(ask((1,)), 0, 0, read.append), PendingSequence(ask((1,)), 0, 0, lambda _: None)]
    Batcher(run, name="batcher that mends a stream").submit(made)

    for sequence in made:
        sequence.future.result(60)
    assert [row for delta in read for row in delta.norms] == rows


def test_cancelled_rows_of_a_failed_batch_are_not_run_again() -> None:
    """Who has gone away while a batch failed costs nothing more."""
    sizes, made = [], [PendingSequence(ask((i,)), 0, 0) for i in range(4)]

    def run(sequences: list[PendingSequence]) -> list[Completion]:
        sizes.append(len(sequences))
        if len(sequences) > 2:
            made[0].cancel()
            made[1].cancel()
            raise MemoryError
        return [Completion([sequence.request.prompt_ids[0]], [""], "stop") for sequence in sequences]

    Batcher(run, name="batcher that fails once").submit(made)

    assert [sequence.future.result(60).token_ids for sequence in made[2:]] == [[2], [3]]
    assert sizes == [4, 2]


def test_a_row_is_begun_anew_for_others_only_so_often() -> None:
    """A steady trickle of others does not keep a sequence from its answer."""
    sizes: list[int] = []

    def run(sequences: list[PendingSequence]) -> list[Completion]:
        sizes.append(len(sequences))
        batcher.submit([PendingSequence(ask((1,)), 0, 0)] if len(sizes) < 20 else [])
        if batcher.should_restart():
            raise BatchRestart
        return [Completion([0], [""], "stop") for _ in sequences]

    batcher = Batcher(run, name="batcher that is joined")
    sequence = PendingSequence(ask((1,)), 0, 0)
    batcher.submit([sequence])
    sequence.future.result(60)
    assert sizes[:4] == [1, 2, 3, 4]
    assert sequence.num_restarts == 3
    wait_until(lambda: not any(t.name == "batcher that is joined" for t in threading.enumerate()))

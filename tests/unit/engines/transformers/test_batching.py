"""The queue in front of a model: who shares a batch, and that everyone gets their own result or error."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import chain

import pytest

from langnorm.engines.requests import Completion
from langnorm.engines.transformers import batching
from langnorm.engines.transformers.batching import Batcher
from langnorm.engines.transformers.sequence import PendingSequence
from tests.support.calls import ask, wait_until

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


@pytest.fixture
def runner():
    """Returns a fresh runner and checks at the end that its thread is over."""
    runner = Runner()
    yield runner
    runner.may_go_on.set()
    wait_until(lambda: not has_worker())


@pytest.fixture
def patient(monkeypatch) -> None:
    """Lets the worker wait for ever for who is expected: those who come are joined, and a needless wait is a hang."""
    monkeypatch.setattr(batching, "_LINGER_SECONDS", ENDLESS_SECONDS)
    monkeypatch.setattr(batching, "_GATHERING_SECONDS", ENDLESS_SECONDS)


def test_rows_get_their_own_results_in_order(runner) -> None:
    """Rows run in the order they came and each gets its own completion."""
    made = runner.submit(*range(10))

    assert [result(sequence) for sequence in made] == list(range(10))
    assert runner.batches == [list(range(10))]


def test_batches_are_no_larger_than_allowed(runner) -> None:
    """A batch is cut at `max_batch_size`, and no sequence waits for a fuller one."""
    made = runner.submit(*range(8), max_batch_size=3)

    assert [result(sequence) for sequence in made] == list(range(8))
    assert runner.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_every_row_of_a_batch_allows_its_size(runner) -> None:
    """The smallest limit in a batch holds for all of it, and nobody overtakes."""
    made = sequences(0, 1, 2) + sequences(3, 4, max_batch_size=1) + sequences(5, 6, 7, max_batch_size=2)

    runner.batcher.submit(made)

    assert [result(sequence) for sequence in made] == list(range(8))
    assert runner.batches == [[0, 1, 2], [3], [4], [5, 6], [7]]


def test_rows_that_come_during_a_batch_share_the_next(runner) -> None:
    """What is queued while the model is busy runs together afterwards."""
    runner.may_go_on.clear()
    made = runner.submit(0)
    wait_until(lambda: runner.batches == [[0]])
    made += runner.submit(1) + runner.submit(2, 3) + runner.submit(4)
    runner.may_go_on.set()

    assert [result(sequence) for sequence in made] == list(range(5))
    assert runner.batches == [[0], [1, 2, 3, 4]]


@pytest.mark.usefixtures("patient")
def test_expected_requests_are_joined(runner) -> None:
    """Announced requests from several threads run in one batch, in spite of pauses between them."""

    def submit_later(n: int) -> int:
        time.sleep(0.01 * n)
        return result(runner.submit(n)[0])

    with runner.batcher.expect(4), ThreadPoolExecutor(4) as pool:
        assert list(pool.map(submit_later, range(4))) == list(range(4))

    assert [sorted(batch) for batch in runner.batches] == [[0, 1, 2, 3]]


@pytest.mark.usefixtures("patient")
def test_full_batch_does_not_wait_for_more(runner) -> None:
    """As soon as a batch is as large as its sequences allow, it runs, although more are expected."""
    with runner.batcher.expect(100):
        made = runner.submit(0, 1, 2, max_batch_size=2)
        assert [result(sequence) for sequence in made[:2]] == [0, 1]

    assert result(made[2]) == 2
    assert runner.batches == [[0, 1], [2]]


def test_requests_that_never_come_do_not_block(runner, monkeypatch) -> None:
    """An expected request that does not come costs the time of one pause, not the answer."""
    monkeypatch.setattr(batching, "_GATHERING_SECONDS", ENDLESS_SECONDS)
    with runner.batcher.expect(100):
        assert result(runner.submit(1)[0]) == 1
        assert result(runner.submit(2)[0]) == 2


@pytest.mark.usefixtures("patient")
def test_nobody_waits_after_an_announcement_ended(runner) -> None:
    """Requests that were announced and never came are forgotten when the `with` block ends."""
    with runner.batcher.expect(5):
        pass

    assert result(runner.submit(1)[0]) == 1


@pytest.mark.usefixtures("patient")
def test_an_ending_announcement_leaves_another_one_alone(runner) -> None:
    """When one `batch` is over, the requests that another one has announced are still joined."""
    second = ExitStack()
    with runner.batcher.expect(1):
        assert result(runner.submit(0)[0]) == 0
        second.enter_context(runner.batcher.expect(2))
    with second:
        made = runner.submit(1)
        time.sleep(0.2)
        made += runner.submit(2)
        assert [result(sequence) for sequence in made] == [1, 2]

    assert runner.batches == [[0], [1, 2]]


@pytest.mark.parametrize("error", [ValueError("broken"), MemoryError(), KeyboardInterrupt()], ids=repr)
def test_error_reaches_every_row_of_its_batch(error, runner) -> None:
    """All sequences of a failed batch raise its error, those after it do not, and the next batch works."""
    runner.error = error
    runner.may_go_on.clear()
    failing = runner.submit(0, 1, 2, max_batch_size=3)
    wait_until(lambda: len(runner.batches) == 1)
    later = runner.submit(3)
    runner.may_go_on.set()

    for sequence in failing:
        with pytest.raises(type(error)):
            result(sequence)
    with pytest.raises(type(error)):
        result(later[0])
    runner.error = None
    assert result(runner.submit(4)[0]) == 4


@pytest.mark.parametrize("num_completions", [1, 3])
def test_wrong_number_of_completions_is_an_error(num_completions, runner) -> None:
    """A model that answers too few or too many sequences leaves none waiting for ever."""
    runner.run = lambda _rows: [Completion([0], [""], "stop")] * num_completions
    batcher = Batcher(runner.run, name=NAME)
    made = sequences(0, 1)

    batcher.submit(made)

    outcomes = [sequence.future.exception(HANG_SECONDS) for sequence in made]
    assert any(isinstance(outcome, Exception) for outcome in outcomes)


def test_cancelled_rows_are_skipped(runner) -> None:
    """Rows that were cancelled while they waited are never run, and do not take a place in a batch."""
    runner.may_go_on.clear()
    runner.submit(0)
    wait_until(lambda: runner.batches == [[0]])
    made = runner.submit(1, 2, 3, 4, 5, max_batch_size=2)
    for sequence in (made[0], made[2], made[4]):
        sequence.cancel()
    runner.may_go_on.set()

    assert [result(made[1]), result(made[3])] == [2, 4]
    assert runner.batches == [[0], [2, 4]]
    for sequence in (made[0], made[2], made[4]):
        with pytest.raises(CancelledError):
            sequence.future.result(HANG_SECONDS)


@pytest.mark.parametrize("error", [None, ValueError("broken")], ids=["result", "error"])
def test_cancelled_future_of_running_row_disturbs_nobody(error, runner) -> None:
    """Cancelling the future of a running sequence, as asyncio does, costs the others and later calls nothing."""
    runner.error = error
    runner.may_go_on.clear()
    made = runner.submit(0, 1, 2)
    wait_until(lambda: len(runner.batches) == 1)
    made[0].future.cancel()
    made[1].future.cancel()
    runner.may_go_on.set()

    if error is None:
        assert result(made[2]) == 2
    else:
        with pytest.raises(ValueError, match="broken"):
            result(made[2])
    runner.error = None
    assert result(runner.submit(3)[0]) == 3


def test_cancelled_future_of_waiting_row_disturbs_nobody(runner) -> None:
    """The future of a sequence may be cancelled while it waits."""
    runner.may_go_on.clear()
    made = runner.submit(0, max_batch_size=1) + runner.submit(1) + runner.submit(2)
    made[1].cancel()
    made[1].future.cancel()
    runner.may_go_on.set()

    assert [result(made[0]), result(made[2])] == [0, 2]
    assert not any(1 in batch for batch in runner.batches)


@pytest.mark.usefixtures("patient")
def test_rows_wait_for_requests_that_are_being_prepared(runner) -> None:
    """Who is first waits for those who are known to come, and for no longer than until they are there."""
    with runner.batcher.preparing():
        made = runner.submit(0, max_batch_size=2)
        time.sleep(0.1)
        assert runner.batches == []
    made += runner.submit(1, max_batch_size=2)

    assert [result(sequence) for sequence in made] == [0, 1]
    assert runner.batches == [[0, 1]]


def test_a_request_that_is_never_ready_does_not_block(runner, monkeypatch) -> None:
    """Preparing may take long: others wait for it for a while, and not as long as it takes."""
    monkeypatch.setattr(batching, "_GATHERING_SECONDS", 0.05)
    with runner.batcher.preparing():
        assert result(runner.submit(1)[0]) == 1


@pytest.mark.usefixtures("patient")
def test_a_request_whose_preparation_fails_is_forgotten(runner) -> None:
    """Nobody waits for a request that was not made because of an error."""
    with suppress(ZeroDivisionError), runner.batcher.preparing():
        _ = 1 / 0
    assert result(runner.submit(2)[0]) == 2


def test_worker_ends_when_idle_and_starts_again(runner) -> None:
    """There is a thread as long as there are sequences, and only then."""
    assert not has_worker()
    for n in range(3):
        assert result(runner.submit(n)[0]) == n
        wait_until(lambda: not has_worker())

    assert runner.batches == [[0], [1], [2]]


def test_worker_ends_when_all_waiting_rows_are_cancelled(runner) -> None:
    """Nothing but cancelled sequences is nothing to do."""
    runner.may_go_on.clear()
    (running,) = runner.submit(0)
    wait_until(lambda: runner.batches == [[0]])
    for sequence in runner.submit(1, 2):
        sequence.cancel()
    runner.may_go_on.set()

    assert result(running) == 0
    wait_until(lambda: not has_worker())
    assert runner.batches == [[0]]


def test_submitting_nothing_is_harmless(runner) -> None:
    """A call without sequences neither hangs nor disturbs the next."""
    runner.batcher.submit([])

    wait_until(lambda: not has_worker())
    assert result(runner.submit(1)[0]) == 1


def test_worker_does_not_keep_python_alive(runner) -> None:
    """The worker is a daemon: leaving Python does not wait for an answer."""
    runner.may_go_on.clear()
    runner.submit(0)
    wait_until(lambda: len(runner.batches) == 1)

    assert all(thread.daemon for thread in threading.enumerate() if thread.name == NAME)


def test_worker_that_does_not_start_is_tried_again(runner, monkeypatch) -> None:
    """When no thread can be started, the call fails, its sequences are never run, and the next call works."""

    def refuse(_thread: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="start new thread"):
            runner.submit(0)

    assert result(runner.submit(1)[0]) == 1
    assert runner.batches == [[1]]


FORK = """
import os, signal, threading
from langnorm.engines.requests import Completion, Request
from langnorm.engines.transformers.batching import Batcher
from langnorm.engines.transformers.sequence import PendingSequence
from langnorm.engines.options import Sampling

has_started, may_go_on = threading.Event(), threading.Event()

def run(sequences):
    has_started.set()
    assert os.getpid() != parent or may_go_on.wait(20)
    return [Completion([os.getpid()], [""], "stop") for _ in sequences]

def submit():
    sequence = PendingSequence(Request((1,), Sampling()), sample=0, seed=0)
    batcher.submit([sequence])
    return sequence.future

def hold(lock):
    with lock:
        is_held.set()
        may_go_on.wait(20)

parent, batcher, is_held = os.getpid(), Batcher(run, name="parent"), threading.Event()
running = submit()
assert has_started.wait(20)
waiting = submit()
threading.Thread(target=hold, args=[batcher._changed]).start()
assert is_held.wait(20)
child = os.fork()
if not child:
    signal.alarm(20)
    is_own = submit().result(10).token_ids == [os.getpid()]
    os._exit(0 if is_own and not running.done() and not waiting.done() else 1)
assert os.waitpid(child, 0)[1] == 0
may_go_on.set()
assert [running.result(10).token_ids, waiting.result(10).token_ids] == [[parent]] * 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_forked_process_has_a_worker_of_its_own() -> None:
    """A child gets answers although the parent's worker was busy and its lock held, and the parent keeps its own."""
    done = subprocess.run([sys.executable, "-c", FORK], check=False, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr


def test_many_threads_lose_nothing(runner) -> None:
    """Rows from many threads at once, some announced and some cancelled, are run once each or not at all."""
    num_threads, num_rounds = 12, 40
    cancelled = set()

    def work(thread: int) -> None:
        for i in range(num_rounds):
            n = 2 * (thread * num_rounds + i)
            if i % 3 == 0:
                with runner.batcher.expect(2):
                    made = runner.submit(n) + runner.submit(n + 1)
            else:
                made = runner.submit(n, n + 1, max_batch_size=1 + i % 7)
            if i % 5 == 0:
                made[1].cancel()
                cancelled.add(n + 1)
                made = made[:1]
            assert [result(sequence) for sequence in made] == [number(sequence) for sequence in made]

    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(work, range(num_threads)))

    run = Counter(chain.from_iterable(runner.batches))
    assert max(run.values()) == 1
    assert set(range(2 * num_threads * num_rounds)) - set(run) <= cancelled

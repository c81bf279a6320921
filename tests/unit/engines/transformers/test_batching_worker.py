"""The thread behind the queue: it lives as long as there is work, in each process its own, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from tests.support.batches import NAME, has_worker, number, result
from tests.support.calls import wait_until


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
from langnorm.engines.sequence import PendingSequence
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

"""Python's exit ends what runs; nothing is left of it for the time after."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from langnorm.engines.transformers.batching import BatchAbandoned
from tests.support.batches import has_worker, result
from tests.support.calls import wait_until

SLOW_STEP = """
import sys, threading, time
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Completion, Request
from langnorm.engines.transformers.batching import Batcher
from langnorm.engines.sequence import PendingSequence

def run(sequences):
    print("begun", flush=True)
    while not all(sequence.is_cancelled for sequence in sequences):
        time.sleep(0.01)
    time.sleep({seconds})
    print("ended", flush=True)
    return [Completion([1], [""], "stop") for _ in sequences]

def submit():
    batcher.submit([PendingSequence(Request((1,), Sampling(), max_batch_size=1), sample=0, seed=0)])

def submit_for_ever():
    try:
        while True:
            submit()
            time.sleep(0.05)
    except RuntimeError as error:
        print(error, flush=True)

batcher = Batcher(run, name="slow")
submit()
threading.Thread(target=submit_for_ever, daemon=True).start()
time.sleep(0.2)
"""


READERS = """
import queue, threading, time
import torch
from langnorm.engines import process_events
from langnorm.engines.deadline import Deadline

class Closing:
    def close(self):
        items.put("an item of the time of the exit")

    def join(self):
        pass

def read():
    while True:
        print(Deadline(None).next_of(items), flush=True)

COMPUTING = '''
def compute():
    values, end = torch.rand(200, 50), time.monotonic() + 0.5
    while time.monotonic() < end:
        torch.sort(values)
    print("computed", flush=True)
'''

items, closing = queue.SimpleQueue(), Closing()
process_events.watch(closing)
space = {"time": time, "torch": torch, "__name__": "langnorm.scores"}
exec(COMPUTING, space)
items.put("an item")
threading.Thread(target=read, daemon=True).start()
threading.Thread(target=space["compute"], daemon=True).start()
time.sleep(0.1)
"""


def test_exit_waits_for_what_is_computed_and_lets_nobody_begin() -> None:
    """Python would end a thread in the midst of it, and abort where that is in C++: who waits for more ends at once."""
    done = subprocess.run([sys.executable, "-c", READERS], check=False, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, "an item\ncomputed\n", "")


def test_exit_waits_for_the_step_under_way_and_for_no_other() -> None:
    """All is cancelled, the step ends, what waits is never begun, and later calls are refused."""
    program = SLOW_STEP.format(seconds=0.5)

    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "Python is exiting, so no answer can be generated any more.",
        "begun",
        "ended",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_interrupting_the_exit_ends_it_at_once() -> None:
    """Ctrl-C while Python waits for a long step does not abort: the exit code is that of an interrupt."""
    program = SLOW_STEP.format(seconds=100) + "print('exits', flush=True)\n"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line == "Python is exiting, so no answer can be generated any more.\n":
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)

        assert process.wait(30) == 130


def test_abandoned_batch_ends_its_sequences(runner) -> None:
    """All of its sequences end as cancelled ones do, and the next batch runs."""
    runner.may_go_on.clear()
    runner.error = BatchAbandoned()
    made = runner.submit(0, 1)
    wait_until(lambda: runner.batches == [[0, 1]])
    for sequence in made:
        sequence.cancel()
    runner.may_go_on.set()

    assert [type(sequence.future.exception(30)).__name__ for sequence in made] == ["CancelledError"] * 2
    wait_until(lambda: not has_worker())
    runner.error = None
    assert result(runner.submit(2)[0]) == 2
    assert runner.batches == [[0, 1], [2]]

"""The queue in front of a model: who shares a batch, and that everyone gets their own result or error."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from langnorm.engines.requests import Completion
from langnorm.engines.transformers import batching
from langnorm.engines.transformers.batching import Batcher
from tests.support.batches import ENDLESS_SECONDS, HANG_SECONDS, NAME, result, sequences
from tests.support.calls import wait_until


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

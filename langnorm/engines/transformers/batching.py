"""Joins requests from any thread or task into batches and hands each one its own result.

The unit is a sequence: one of the answers that a request asks for. Sequences are run in the order in which they came,
as many at a time as all of them allow. A worker thread runs them; it starts with the first sequence and ends when none
is left, so an idle engine has no thread.

                     +-------- restarted --------+
                     v                           |
    submit ------> waiting ------------------> running ------> ended
                     |                          |   ^            ^
                     |                          v   |            |
                     |                         mended            |
                     |                                           |
                     +------- cancelled before its turn ---------+

waiting     In the queue. A batch begins at once, unless other requests are known to be on their way: nobody waits for
            company that may never come.
running     In the batch under way; there is one batch at a time.
restarted   Others came while the batch had hardly begun: all of it goes back to the front of the queue and begins again
            together with them, which costs the steps made so far. A sequence is restarted a few times at most.
mended      The batch failed, and its halves are run one after the other, and so on down to single sequences: only those
            whose fault it is end with the error. When the batch did not fit into memory, later ones are smaller for a
            while. Nobody joins meanwhile.
ended       Its future is done. A sequence that is cancelled while it waits, or between two runs, ends with
            `CancelledError`; one that is cancelled while it runs stops within one step, with the tokens it has. When
            all of a batch are cancelled, it is abandoned within one layer of the prefill.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from langnorm.engines import process_events
from langnorm.engines.requests import Completion
from langnorm.engines.sequence import PendingSequence
from langnorm.errors import MemoryLimitError, forget_locals

_LINGER_SECONDS = 0.02  # longest pause between the arrivals of two requests that belong together
_ANNOUNCED_SECONDS = 0.3  # the same where the next one is announced: on a busy machine, its thread begins late
_GATHERING_SECONDS = 0.5  # longest wait for all that join a batch
_MAX_RESTARTS = 3  # of a sequence, for the sake of others
_NUM_FITTING_BATCHES = 8  # that fill the size known to fit, until a larger one is tried again


class BatchRestart(Exception):  # noqa: N818 (nothing went wrong)
    """Raised inside a batch to run it again from its start, together with sequences that have come meanwhile."""


class BatchAbandoned(Exception):  # noqa: N818 (nothing went wrong)
    """Raised inside a batch to end it when all of its sequences were cancelled."""


@dataclass(eq=False, slots=True)
class _Announcement:
    """The requests of one `expect` that have not come yet."""

    num_missing: int


class Batcher:
    """A queue of sequences in front of one model.

    Args:
        run: Generates a batch and returns a completion per sequence, in order. Sequences that were cancelled meanwhile
            may have any completion. It may raise `BatchRestart` where `should_restart` says so, `BatchAbandoned` where
            all were cancelled, and `MemoryLimitError`.
        name: Of the worker thread.
        model: What `run` runs; queues in front of the same one take turns. By default nobody else has it.
        on_batch_end: Called by the worker after each batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[PendingSequence]], list[Completion]],
        name: str,
        model: object | None = None,
        on_batch_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._run = run
        self._name = name
        self._model = self if model is None else model
        self._on_batch_end = on_batch_end
        self.reset()
        process_events.watch(self)

    def reset(self) -> None:
        """Forget all sequences and the worker, and end none: in a forked process they are the parent's."""
        self._waiting: deque[PendingSequence] = deque()
        self._running: list[PendingSequence] = []
        self._announced: list[_Announcement] = []
        self._num_preparing = 0
        self._changed = threading.Condition()
        self._model_is_free = process_events.lock_of(self._model)
        self._worker: threading.Thread | None = None
        self._is_closed = False
        self._is_gathering = False  # sequences that came with others may be followed by more
        self._is_mending = False  # a batch that failed is run again in parts
        self._most_in_memory: int | None = None  # sequences that fit together; None as long as all did
        self._num_fitting_batches = 0  # batches of that size since then

    @property
    def num_waiting(self) -> int:
        """Number of sequences that wait for a batch."""
        return len(self._waiting)

    def submit(self, sequences: Sequence[PendingSequence]) -> None:
        """Queue sequences; they are run in this order.

        Raises:
            RuntimeError: Python is exiting.
        """
        with self._changed:
            if self._is_closed:
                msg = "Python is exiting, so no answer can be generated any more."
                raise RuntimeError(msg)
            if self._worker is None or not self._worker.is_alive():
                # A daemon, so that leaving Python does not wait for an answer that nobody reads.
                worker = threading.Thread(target=self._work, name=self._name, daemon=True)
                worker.start()
                self._worker = worker
            self._waiting.extend(sequences)
            for announcement in self._announced:
                if announcement.num_missing:
                    announcement.num_missing -= 1
                    break
            self._changed.notify_all()

    @contextmanager
    def expect(self, num_requests: int) -> Iterator[None]:
        """Announce `num_requests` calls of `submit`: the worker waits a moment for each, to run them together."""
        announcement = _Announcement(num_requests)
        with self._changed:
            self._announced.append(announcement)
        try:
            yield
        finally:
            with self._changed:
                # Requests that never came (a cache had the answer) must not slow others down.
                if announcement in self._announced:  # a forked process has forgotten it
                    self._announced.remove(announcement)
                self._changed.notify_all()

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Announce that `submit` is called soon after the `with` block: sequences that wait already wait for it too."""
        with self._changed:
            self._num_preparing += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_preparing = max(0, self._num_preparing - 1)  # a forked process knows of none
                self._changed.notify_all()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep batches from running inside the `with` block, which begins when the one under way has ended."""
        with self._model_is_free:
            yield

    def close(self) -> None:
        """Cancel all sequences, and take no more."""
        with self._changed:
            self._is_closed = True
            for sequence in (*self._running, *self._waiting):
                sequence.cancel()

    def join(self) -> None:
        """Wait for the end of the worker."""
        if worker := self._worker:
            process_events.wait_for_end(worker)

    def should_restart(self) -> bool:
        """Return whether the running batch has room for what waits first and may be restarted; the worker asks."""
        if self._is_mending or not self._waiting:
            return False
        running, first = self._running, self._waiting[0]  # only the worker takes it away
        if first.is_cancelled or not all(
            not sequence.has_sent and sequence.num_restarts < _MAX_RESTARTS for sequence in running
        ):
            return False
        return len(running) < self._max_batch_size([*running, first])

    def _work(self) -> None:
        while sequences := self._next_batch():
            try:
                self._complete(sequences)
            except BatchRestart:
                with self._changed:
                    unfinished = [sequence for sequence in sequences if not sequence.future.done()]
                    for sequence in unfinished:
                        sequence.num_restarts += 1
                    self._waiting.extendleft(reversed(unfinished))
                    self._is_gathering = True
            self._on_batch_end()

    def _complete(self, sequences: list[PendingSequence]) -> None:
        """End all sequences of a batch, with completions or errors."""
        is_too_large = is_one_too_large = False
        most_fitting = 0
        groups = deque([sequences])
        while groups:
            group = [sequence for sequence in groups.popleft() if not _end_if_cancelled(sequence)]
            if not group:
                continue
            error = self._attempt(group)
            if error is None:
                most_fitting = max(most_fitting, len(group))
            elif len(group) > 1 and isinstance(error, Exception):
                self._is_mending = True
                is_too_large |= isinstance(error, MemoryLimitError)
                middle = (len(group) + 1) // 2
                groups.extendleft([group[middle:], group[:middle]])
            else:
                is_one_too_large |= isinstance(error, MemoryLimitError)
                for sequence in group:
                    sequence.future.set_exception(error)
        self._is_mending = False
        # A sequence that does not fit alone says nothing of others.
        self._adjust_batch_size(most_fitting, is_too_large=is_too_large and not is_one_too_large)

    def _attempt(self, sequences: list[PendingSequence]) -> BaseException | None:
        """Run sequences together and end them with their completions; return the error, if one was raised, instead."""
        for sequence in sequences:
            sequence.begin()
        try:
            with self._model_is_free:
                completions = self._run(sequences)
        except BatchRestart:
            raise
        except BatchAbandoned:
            for sequence in sequences:
                _end_if_cancelled(sequence)
            return None
        except BaseException as error:  # noqa: BLE001 (it is handed to whoever waits)
            # The frames hold on to the tensors of the batch: the halves need their memory, and users keep errors.
            forget_locals(error)
            return error
        if len(completions) != len(sequences):
            msg = f"The model answered {len(completions)} of {len(sequences)} sequences."
            for sequence in sequences:
                sequence.future.set_exception(RuntimeError(msg))
            return None
        for sequence, completion in zip(sequences, completions, strict=True):
            sequence.finish(completion)
        return None

    def _adjust_batch_size(self, num_sequences: int, *, is_too_large: bool) -> None:
        """Keep to the size that fitted, and try larger ones again later: long prompts do not come for ever."""
        if is_too_large:
            self._most_in_memory, self._num_fitting_batches = max(1, num_sequences), 0
        elif self._most_in_memory and num_sequences >= self._most_in_memory:
            self._num_fitting_batches += 1
            if self._num_fitting_batches >= _NUM_FITTING_BATCHES:
                self._most_in_memory, self._num_fitting_batches = 2 * self._most_in_memory, 0

    def _max_batch_size(self, sequences: Sequence[PendingSequence]) -> int:
        """Return how many sequences a batch may have that holds all of these."""
        limits = [sequence.request.max_batch_size for sequence in sequences]
        return min([*limits, self._most_in_memory] if self._most_in_memory else limits)

    def _next_batch(self) -> list[PendingSequence]:
        """Return the sequences to run now; without any, the worker ends."""
        with self._changed:
            self._wait_for_expected()
            self._is_gathering = False
            sequences: list[PendingSequence] = []
            while self._waiting:
                sequence = self._waiting[0]
                is_restarted = sequence.future.running()
                if _end_if_cancelled(sequence) if is_restarted else sequence.is_cancelled and sequence.future.cancel():
                    self._waiting.popleft()
                    continue
                if sequences and len(sequences) >= self._max_batch_size([*sequences, sequence]):
                    break
                self._waiting.popleft()
                # From here on nobody but the worker ends the future: a task that is cancelled cancels what it awaits.
                if is_restarted or sequence.future.set_running_or_notify_cancel():
                    sequences.append(sequence)
            self._running = sequences
            if not sequences:
                self._worker = None
            return sequences

    def _wait_for_expected(self) -> None:
        """Wait for announced requests, and for those that come with others; not long for any, and for all of these."""
        end = time.monotonic() + _GATHERING_SECONDS
        while True:
            is_in_time = time.monotonic() < end
            # A request has hardly been prepared when it is submitted, and more are likely to follow.
            self._is_gathering |= self._num_preparing > 0
            is_expected = any(announcement.num_missing for announcement in self._announced)
            if not is_expected and not (self._is_gathering and is_in_time):
                return
            limit = self._max_batch_size(self._waiting) if self._waiting else 1
            if len(self._waiting) >= limit:
                return
            has_changed = self._changed.wait(
                max(_ANNOUNCED_SECONDS, _LINGER_SECONDS) if is_expected else _LINGER_SECONDS
            )
            if not has_changed and not (self._num_preparing and is_in_time):
                return


def _end_if_cancelled(sequence: PendingSequence) -> bool:
    """End a sequence that has begun if it was cancelled, and return whether it was."""
    if sequence.is_cancelled and not sequence.future.done():
        sequence.finish_cancelled()
    return sequence.is_cancelled

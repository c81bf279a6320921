"""Hands sequences to vLLM and its tokens back, on one thread: vLLM itself decides which run in which pass."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from langnorm.engines import process_events
from langnorm.engines.requests import PrefixHit
from langnorm.engines.vllm.core import VllmCore
from langnorm.engines.vllm.running import RunningSequence
from langnorm.engines.vllm.scoring import TextScorer
from langnorm.engines.worker import Worker
from langnorm.errors import forget_locals

if TYPE_CHECKING:
    from langnorm.engines.requests import Completion, FinishReason
    from langnorm.engines.sample_group import SampleGroup
    from langnorm.engines.sequence import PendingSequence
    from langnorm.engines.vllm.scoring import PendingText

T = TypeVar("T")

_SECONDS_BETWEEN_NORMS = 0.03
"""Between two times that streams get norms: workers answer between two passes, and wait for the device to do so."""


class Scheduler:
    """The queue in front of one vLLM engine.

    Args:
        core: The engine; only the worker touches it.
        begin: Makes a running sequence of one that waited.
        on_end: Called with the sequences that have ended together, and the norms of their completions.
        name: Of the worker thread.
    """

    def __init__(
        self,
        core: VllmCore,
        begin: Callable[[PendingSequence], RunningSequence],
        on_end: Callable[[Sequence[tuple[RunningSequence, list[list[float]]]]], None],
        name: str,
    ) -> None:
        self._core, self._begin, self._on_end = core, begin, on_end
        self._worker = Worker(self._step, self._is_busy, name, "vLLM")
        self._clear()
        process_events.watch(self)

    def _clear(self) -> None:
        self._waiting: deque[PendingSequence] = deque()
        self._running: dict[str, RunningSequence] = {}
        self._texts = TextScorer(self._core)
        self._norms_sent_at = -math.inf  # on the monotonic clock
        # Tokens after which the pruner of a request last decided.
        self._pruned_after: WeakKeyDictionary[SampleGroup, int] = WeakKeyDictionary()

    def reset(self) -> None:
        """Take nothing more: a forked process has no connection of its own to vLLM's."""
        self._clear()
        self._worker.reset()

    @property
    def num_waiting(self) -> int:
        """Number of sequences that vLLM does not know of yet."""
        return len(self._waiting)

    def submit(self, sequences: Sequence[PendingSequence]) -> None:
        """Queue sequences.

        Raises:
            RuntimeError: Python is exiting, or this is a fork of the process that loaded the model.
        """
        self._worker.wake(lambda: self._waiting.extend(sequences))

    def score(self, texts: Sequence[PendingText]) -> None:
        """Queue texts; errors as for `submit`."""
        self._worker.wake(lambda: self._texts.submit(texts))

    def between_steps(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, which is called by the worker when it is in no step; errors as for `submit`."""
        return self._worker.call(work)

    def close(self) -> None:
        """Cancel all sequences, and take no more."""
        with self._worker.lock:
            self._worker.close()
            for pending in (*self._waiting, *(sequence.pending for sequence in self._running.values())):
                pending.cancel()
            self._texts.cancel()

    def join(self) -> None:
        """Wait for the end of the worker."""
        self._worker.join()

    def _is_busy(self) -> bool:
        return bool(self._running or self._waiting or self._texts.is_busy)

    def _step(self) -> None:
        try:
            self._take_step()
        except BaseException as error:  # noqa: BLE001
            forget_locals(error)  # users keep errors
            running, self._running = list(self._running.values()), {}
            keys_of_texts = self._texts.fail(error)
            with suppress(Exception):  # vLLM may be gone altogether
                self._core.abort([*(sequence.key for sequence in running), *keys_of_texts])
                self._core.forget([sequence.key for sequence in running])
            for sequence in running:
                _end(sequence.pending, error)

    def _take_step(self) -> None:
        self._drop([sequence for sequence in self._running.values() if sequence.pending.is_cancelled])
        while self._waiting:
            self._admit(self._waiting.popleft())
        self._texts.begin()
        if not self._running and not self._texts.is_busy:
            return
        ended: list[tuple[RunningSequence, FinishReason]] = []
        groups: list[SampleGroup] = []
        for gained in self._core.step():
            if self._texts.take(gained):
                continue
            sequence = self._running.get(gained.key)
            if sequence is None:  # it has ended here, before vLLM knew
                continue
            if gained.error:
                self._leave(sequence)
                _end(sequence.pending, gained.error)
                continue
            if gained.num_cached:
                sequence.prefix_hit = PrefixHit(gained.num_cached, gained.num_cached * self._core.bytes_per_token)
            reason = sequence.add(gained.token_ids, gained.logprobs)
            if reason:
                ended.append((sequence, reason))
            else:
                sequence.send()
            if (group := sequence.pending.sample_group) and group not in groups:
                groups.append(group)
        self._finish(ended)
        for group in groups:
            self._prune(group)
        self._send_norms()

    def _admit(self, pending: PendingSequence) -> None:
        if not pending.future.set_running_or_notify_cancel():
            return
        if pending.is_cancelled:
            _end(pending, CancelledError())
            return
        try:
            sequence = self._begin(pending)
            self._core.add(sequence.order, pending.request.prompt_ids, sequence.num_logprobs)
        except Exception as error:  # noqa: BLE001
            _end(pending, error)
        else:
            self._running[sequence.key] = sequence

    def _drop(self, sequences: Sequence[RunningSequence]) -> None:
        """Give up sequences that nobody waits for."""
        keys = [sequence.key for sequence in sequences]
        self._core.abort(keys)
        self._core.forget([sequence.key for sequence in sequences if sequence.has_orders])
        for sequence in sequences:
            self._leave(sequence)
            _end(sequence.pending, CancelledError())

    def _finish(self, ended: Sequence[tuple[RunningSequence, FinishReason]]) -> None:
        """End sequences with what they have."""
        self._core.abort([sequence.key for sequence, _ in ended if sequence.was_ended_here])
        asked = [sequence for sequence, _ in ended if sequence.has_orders]
        num_rows = [len(sequence.token_ids) - 1 for sequence in asked]
        taken = self._core.take([sequence.key for sequence in asked], num_rows) if asked else []
        by_key = {sequence.key: record for sequence, record in zip(asked, taken, strict=True)}
        completed: list[tuple[RunningSequence, Completion]] = []
        for sequence, reason in ended:
            self._leave(sequence)
            try:
                completed.append((sequence, sequence.complete(reason, by_key.get(sequence.key))))
            except Exception as error:  # noqa: BLE001
                _end(sequence.pending, error)
        try:
            self._on_end([(sequence, completion.norms) for sequence, completion in completed])
        except Exception as error:  # noqa: BLE001
            for sequence, _ in completed:
                _end(sequence.pending, error)
            return
        for sequence, completion in completed:
            sequence.pending.finish(completion)

    def _prune(self, group: SampleGroup) -> None:
        """Stop samples that the pruner of their request chooses, when the shortest of them has come far enough."""
        members = [sequence for sequence in self._running.values() if sequence.pending.sample_group is group]
        num_tokens = min((len(member.token_ids) for member in members), default=0)
        if num_tokens <= self._pruned_after.get(group, 0) or not group.is_due(num_tokens):
            return
        self._pruned_after[group] = num_tokens
        seen = self._core.peek([member.key for member in members], [num_tokens - 1] * len(members))
        partials = {
            member.pending.sample: member.partial(num_tokens, of_member)
            for member, of_member in zip(members, seen, strict=True)
        }
        stopped = set(group.stopped(partials))
        chosen = [member for member in members if member.pending.sample in stopped]
        for member in chosen:
            member.was_ended_here = True
        self._finish([(member, "pruned") for member in chosen])

    def _send_norms(self) -> None:
        """Send norms to the streams that show them; of all at once, and not more often than one can see."""
        live = [sequence for sequence in self._running.values() if sequence.unsent_rows]
        if not live or time.monotonic() - self._norms_sent_at < _SECONDS_BETWEEN_NORMS:
            return
        wanted = [sequence.unsent_rows for sequence in live]
        keys = [sequence.key for sequence in live]
        found = self._core.norms(keys, [rows.start for rows in wanted], [rows.stop for rows in wanted])
        for sequence, norms in zip(live, found, strict=True):
            sequence.send_norms(norms)
        self._norms_sent_at = time.monotonic()

    def _leave(self, sequence: RunningSequence) -> None:
        self._running.pop(sequence.key, None)


def _end(pending: PendingSequence, error: BaseException) -> None:
    """End a sequence with an error."""
    if not pending.future.done():
        pending.future.set_exception(error)

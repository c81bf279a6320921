"""Runs the sequences of one model together: they join and leave between forward passes; none waits for the longest.

Where keys and values have no place, idle slots are forgotten, and then the sequence that came last goes back to the
queue: it keeps its tokens, which are run again later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

import torch

from langnorm.engines import process_events
from langnorm.engines.llamacpp.forward_pass import PassRunner
from langnorm.engines.llamacpp.library import LlamaContext
from langnorm.engines.llamacpp.running import RunningSequence
from langnorm.engines.llamacpp.slots import Place, Slots
from langnorm.engines.requests import PrefixHit
from langnorm.engines.sequence import PendingSequence
from langnorm.engines.worker import Worker
from langnorm.errors import MemoryLimitError, forget_locals

if TYPE_CHECKING:
    from langnorm.engines.requests import FinishReason
    from langnorm.engines.sample_group import SampleGroup

T = TypeVar("T")


class Scheduler:
    """The queue of one context.

    Args:
        context: The context; only the worker touches it.
        passes: Runs its forward passes.
        slots: Its slots.
        begin: Makes a running sequence of one that waited.
        on_end: Called with each finished sequence.
        name: Of the worker thread.
    """

    def __init__(
        self,
        context: LlamaContext,
        passes: PassRunner,
        slots: Slots,
        begin: Callable[[PendingSequence], RunningSequence],
        on_end: Callable[[RunningSequence], None],
        name: str,
    ) -> None:
        self._context, self._passes, self._slots = context, passes, slots
        self._begin, self._on_end = begin, on_end
        self._worker = Worker(self._step, self._is_busy, name, "llama.cpp")
        self._clear()
        process_events.watch(self)

    def _clear(self) -> None:
        """Forget all sequences."""
        self._waiting: deque[PendingSequence | RunningSequence] = deque()
        self._running: list[RunningSequence] = []  # in the order in which they came
        # Tokens after which the pruner of a request last decided.
        self._pruned_after: WeakKeyDictionary[SampleGroup, int] = WeakKeyDictionary()
        self._must_forget = False  # what ended sequences left
        self._suspects: set[RunningSequence] = set()  # of which one may fail: each runs alone
        self._is_full = False  # a sequence was sent back: none begins before another one has ended

    def reset(self) -> None:
        """Take nothing more: in a forked process, the threads of llama.cpp are the parent's."""
        self._clear()
        self._worker.reset()

    @property
    def num_waiting(self) -> int:
        """Number of sequences that wait for a slot."""
        return len(self._waiting)

    def between_passes(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, which is called by the worker when no pass is under way.

        Raises:
            RuntimeError: Python is exiting, or this is a fork of the process that loaded the model.
        """
        return self._worker.call(work)

    def submit(self, sequences: Sequence[PendingSequence]) -> None:
        """Queue sequences.

        Raises:
            RuntimeError: Python is exiting, or this is a fork of the process that loaded the model.
        """
        self._worker.wake(lambda: self._waiting.extend(sequences))

    def forget_idle(self) -> None:
        """Forget what sequences that have ended left for others to begin with."""
        with self._worker.lock:
            self._must_forget = True
            if not self._worker.is_running:
                self._drop_idle()

    def close(self) -> None:
        """Cancel all sequences, and take no more."""
        with self._worker.lock:
            self._worker.close()
            for sequence in (*self._running, *self._waiting):
                _pending(sequence).cancel()

    def join(self) -> None:
        """Wait for the end of the worker."""
        self._worker.join()

    def _is_busy(self) -> bool:
        return bool(self._running or self._waiting)

    def _step(self) -> None:
        try:
            self._take_step()
        except BaseException as error:  # noqa: BLE001
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Begin anew with an empty context, and end with an error what failed alone.

        Sequences that failed together are run again, one at a time: one of them must not be the end of the others.
        """
        forget_locals(error)  # users keep errors, and the frames hold on to the states of the pass
        failed, self._running = self._running, []
        for sequence in failed:
            self._slots.release(sequence.slot, ())
            sequence.num_computed = 0
        self._slots.clear()
        self._context.clear()
        if len(failed) > 1 and isinstance(error, Exception):
            self._suspects.update(failed)
            with self._worker.lock:
                self._waiting.extendleft(reversed(failed))
            return
        for sequence in failed:
            self._forget(sequence)
            _end(sequence.pending, error)

    def _take_step(self) -> None:
        for sequence in [s for s in self._running if s.pending.is_cancelled]:
            self._finish(sequence, "length")
        self._admit()
        due = None
        while self._running and (due := self._passes.run(self._running)) is None:
            self._make_room()
        for sequence in self._running:
            self._slots.set_ready(sequence.slot, sequence.num_unchanged)
        for sequence, row in due or ():
            if sequence in self._running:  # else a pruner has stopped it after the token of another one
                self._go_on(sequence, row)

    def _admit(self) -> None:
        """Let sequences that wait begin, as long as there are slots and all allow it."""
        skipped: list[PendingSequence | RunningSequence] = []
        while self._waiting and not (self._running and (self._is_full or self._suspects)):
            waiting = self._waiting.popleft()
            if not self._is_wanted(waiting):
                continue
            requests = [_pending(sequence).request for sequence in (waiting, *self._running)]
            if len(requests) > min(request.max_batch_size for request in requests):
                skipped.append(waiting)
                break
            if self._must_forget:  # asked for before this one was submitted
                self._drop_idle()
            try:
                is_placed = self._place(waiting)
            except Exception as error:  # noqa: BLE001
                _end(_pending(waiting), error)
            else:
                skipped += [] if is_placed else [waiting]
        with self._worker.lock:
            self._waiting.extendleft(reversed(skipped))

    def _is_wanted(self, waiting: PendingSequence | RunningSequence) -> bool:
        """Return whether somebody waits for a sequence; from then on nobody but the worker ends its future."""
        pending = _pending(waiting)
        is_wanted = pending.future.running() or pending.future.set_running_or_notify_cancel()
        if is_wanted and pending.is_cancelled:
            if isinstance(waiting, RunningSequence):
                self._forget(waiting)
            _end(pending, CancelledError())
        return is_wanted and not pending.is_cancelled

    def _place(self, waiting: PendingSequence | RunningSequence) -> bool:
        """Give a sequence a slot and what it can begin with; return whether there is one."""
        request = _pending(waiting).request
        token_ids = waiting.token_ids if isinstance(waiting, RunningSequence) else request.prompt_ids
        place = self._slots.take(token_ids, can_begin_elsewhere=not request.records_prompt)
        if place is None:
            return False
        if place.dropped is not None:
            self._context.cut(place.dropped, 0)
        if place.donor is not None:
            self._context.copy(place.donor, place.slot, place.num_shared)
        else:
            self._context.cut(place.slot, place.num_shared)
        try:
            sequence = waiting if isinstance(waiting, RunningSequence) else self._enter(waiting, place)
        except Exception:
            self._slots.release(place.slot, token_ids[: place.num_shared])
            raise
        sequence.slot, sequence.num_computed = place.slot, place.num_shared
        self._running.append(sequence)
        return True

    def _enter(self, pending: PendingSequence, place: Place) -> RunningSequence:
        """Return a running sequence for one that begins for the first time."""
        sequence = self._begin(pending)
        self._passes.enter(sequence)
        if place.is_earlier:
            sequence.prefix_hit = PrefixHit(place.num_shared, place.num_shared * self._context.bytes_per_token)
        return sequence

    def _go_on(self, sequence: RunningSequence, row: int) -> None:
        """Choose the next token of a sequence; one that fails ends alone."""
        try:
            sequence.choose(torch.from_numpy(self._context.logits(row)))
            reason = sequence.finish_reason
            if reason is None:
                sequence.send()
        except Exception as error:  # noqa: BLE001
            self._leave(sequence)
            _end(sequence.pending, error)
            return
        if reason is not None:
            self._finish(sequence, reason)
        if group := sequence.pending.sample_group:
            self._prune(group)

    def _prune(self, group: SampleGroup) -> None:
        """Stop samples that the pruner of their request chooses, when the shortest of them has come far enough."""
        members = [sequence for sequence in self._running if sequence.pending.sample_group is group]
        num_tokens = min((member.num_generated for member in members), default=0)
        if num_tokens <= self._pruned_after.get(group, 0) or not group.is_due(num_tokens):
            return
        self._pruned_after[group] = num_tokens
        samples = {member.pending.sample: member.partial(num_tokens, is_running=True) for member in members}
        stopped = set(group.stopped(samples))
        for member in members:
            if member.pending.sample in stopped:
                self._finish(member, "pruned")

    def _finish(self, sequence: RunningSequence, reason: FinishReason) -> None:
        """End a sequence with what it has."""
        report = self._passes.report(sequence)
        self._leave(sequence)
        try:
            completion = sequence.complete(reason, report)
            self._on_end(sequence)
        except Exception as error:  # noqa: BLE001
            _end(sequence.pending, error)
        else:
            sequence.pending.finish(completion)

    def _leave(self, sequence: RunningSequence) -> None:
        """Take a sequence out of the passes; its slot keeps what others may begin with."""
        self._running.remove(sequence)
        self._forget(sequence)
        self._is_full = False
        kept = sequence.num_unchanged
        self._context.cut(sequence.slot, kept)
        self._slots.release(sequence.slot, sequence.token_ids[:kept])

    def _forget(self, sequence: RunningSequence) -> None:
        self._suspects.discard(sequence)
        self._passes.leave(sequence)

    def drop_longest_idle(self) -> bool:
        """Forget what one ended sequence left; return False if there was none. Only the worker may call this."""
        dropped = self._slots.drop_idle()
        if dropped is not None:
            self._context.cut(dropped, 0)
        return dropped is not None

    def _drop_idle(self) -> None:
        self._must_forget = False
        for slot in self._slots.clear():
            self._context.cut(slot, 0)

    def _make_room(self) -> None:
        """Forget what nobody runs, else send back the sequence that came last.

        Raises:
            MemoryLimitError: One sequence alone does not fit.
        """
        if self.drop_longest_idle():
            return
        if len(self._running) == 1:
            msg = (
                f"The context of {self._context.num_cells} tokens has no room for one more. "
                "Raise `context_length` of `engine_kwargs`, or shorten the messages."
            )
            raise MemoryLimitError(msg)
        last, self._is_full = self._running.pop(), True
        self._context.cut(last.slot, 0)
        self._slots.release(last.slot, ())
        last.num_computed = 0
        with self._worker.lock:
            self._waiting.appendleft(last)


def _pending(sequence: PendingSequence | RunningSequence) -> PendingSequence:
    return sequence.pending if isinstance(sequence, RunningSequence) else sequence


def _end(pending: PendingSequence, error: BaseException) -> None:
    """End a sequence with an error."""
    if not pending.future.done():
        pending.future.set_exception(error)

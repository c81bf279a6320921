"""Runs the sequences of one model together: they join and leave between forward passes; none waits for the longest.

Each pass has one token of every sequence that is being answered, and what is left of the pass' length goes to prompts.
Where keys and values have no place, idle slots are forgotten, and then the sequence that came last goes back to the
queue: it keeps its tokens, which are run again later.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.llamacpp.library import LlamaContext, PassTokens
from langnorm.engines.llamacpp.observer import StateObserver
from langnorm.engines.llamacpp.running import RunningSequence
from langnorm.engines.llamacpp.slots import Slots
from langnorm.engines import process_events
from langnorm.errors import MemoryLimitError
from langnorm.interventions.forward_pass import Interventions

if TYPE_CHECKING:
    from torch import Tensor

    from langnorm.engines.requests import FinishReason
    from langnorm.engines.sequence import PendingSequence


class Scheduler:
    """The queue and the worker thread of one context.

    Args:
        context: The context; only the worker touches it.
        observer: What the context calls back.
        slots: Its slots.
        num_layers: Number of decoder layers.
        begin: Makes a running sequence of one that waited.
        on_end: Called with each finished sequence.
        name: Of the worker thread.
    """

    def __init__(
        self,
        context: LlamaContext,
        observer: StateObserver,
        slots: Slots,
        num_layers: int,
        begin: Callable[[PendingSequence], RunningSequence],
        on_end: Callable[[RunningSequence], None],
        name: str,
    ) -> None:
        self._context, self._observer, self._slots = context, observer, slots
        self._num_layers, self._begin, self._on_end, self._name = num_layers, begin, on_end, name
        self.reset()
        process_events.watch(self)

    def reset(self) -> None:
        """Forget all sequences and the worker: in a forked process they are the parent's."""
        self._waiting: deque[PendingSequence | RunningSequence] = deque()
        self._running: list[RunningSequence] = []  # in the order in which they came
        self._interventions = Interventions(self._num_layers)
        self._pruned_after: dict[Any, int] = {}  # tokens after which the pruner of a request last decided
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None
        self._is_closed = False

    @property
    def num_waiting(self) -> int:
        """Number of sequences that wait for a slot."""
        return len(self._waiting)

    def submit(self, sequences: Sequence[PendingSequence]) -> None:
        """Queue sequences.

        Raises:
            RuntimeError: Python is exiting.
        """
        with self._changed:
            if self._is_closed:
                msg = "Python is exiting, so no answer can be generated any more."
                raise RuntimeError(msg)
            self._waiting.extend(sequences)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._worker.start()

    def close(self) -> None:
        """Cancel all sequences, and take no more."""
        with self._changed:
            self._is_closed = True
            for sequence in (*self._running, *self._waiting):
                _pending(sequence).cancel()

    def join(self) -> None:
        """Wait for the end of the worker."""
        if worker := self._worker:
            worker.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._running and not self._waiting:
                    self._worker = None
                    return
            try:
                self._step()
            except BaseException as error:  # noqa: BLE001
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """End all running sequences with an error, and begin anew with an empty context."""
        failed, self._running = self._running, []
        self._interventions = Interventions(self._num_layers)
        for sequence in failed:
            self._slots.release(sequence.slot, ())
            _end(sequence.pending, error)
        self._slots.clear()
        self._context.clear()

    def _step(self) -> None:
        for sequence in [s for s in self._running if s.pending.is_cancelled]:
            self._finish(sequence, "length")
        self._admit()
        if not self._running:
            return
        while self._running and not self._run_pass(self._plan()):
            self._make_room()

    def _admit(self) -> None:
        """Let sequences that wait begin, as long as there are slots and all allow it."""
        skipped: list[PendingSequence | RunningSequence] = []
        while self._waiting:
            waiting = self._waiting.popleft()
            pending = _pending(waiting)
            if pending.is_cancelled:
                _end(pending, CancelledError())
                continue
            most = min(s.request.max_batch_size for s in (pending, *(r.pending for r in self._running)))
            if len(self._running) >= most or not self._place(waiting):
                skipped.append(waiting)
                if len(self._running) >= most:
                    break
        with self._changed:
            self._waiting.extendleft(reversed(skipped))

    def _place(self, waiting: PendingSequence | RunningSequence) -> bool:
        """Give a sequence a slot and what it can begin with; return whether there is one."""
        try:
            sequence = waiting if isinstance(waiting, RunningSequence) else self._begin(waiting)
        except Exception as error:  # noqa: BLE001
            _end(_pending(waiting), error)
            return True
        place = self._slots.take(sequence.token_ids if sequence.can_begin_elsewhere else [-1, *sequence.token_ids])
        if place is None:
            return False
        if place.dropped is not None:
            self._context.cut(place.dropped, 0)
        if place.donor is not None:
            self._context.copy(place.donor, place.slot, place.num_shared)
        else:
            self._context.cut(place.slot, place.num_shared)
        sequence.slot, sequence.num_computed = place.slot, place.num_shared
        request = sequence.pending.request
        if request.plans.all() and not isinstance(waiting, RunningSequence):
            self._interventions.add(
                sequence,
                request.plans,
                seed=sequence.pending.seed,
                sample=sequence.pending.sample,
                num_prompt_tokens=len(request.prompt_ids),
            )
        self._running.append(sequence)
        return True

    def _plan(self) -> list[tuple[RunningSequence, PassTokens]]:
        """Return what the next pass runs: answers first, then prompts, in the order in which they came."""
        room = self._context.most_tokens
        parts = []
        for sequence in sorted(self._running, key=lambda one: len(one.token_ids) - one.num_computed > 1):
            if room == 0:
                break
            tokens = sequence.next_tokens(room)
            room -= len(tokens)
            is_last = sequence.num_computed + len(tokens) == len(sequence.token_ids)
            parts.append((sequence, PassTokens(sequence.slot, sequence.num_computed, tokens, is_last)))
        return parts

    def _run_pass(self, parts: Sequence[tuple[RunningSequence, PassTokens]]) -> bool:
        """Run a pass and all that follows from it; return whether there was memory for it."""
        first_rows = [0]
        for _, part in parts:
            first_rows.append(first_rows[-1] + len(part.token_ids))
        with_logits = [first_rows[i + 1] - 1 for i, (_, part) in enumerate(parts) if part.has_logits]
        acted = sorted({layer for sequence, _ in parts for layer in sequence.pending.request.plans.layers})
        if acted:
            lengths = [len(part.token_ids) for _, part in parts]
            self._interventions.begin_pass([s for s, _ in parts], [s.first_step for s, _ in parts], lengths)
        self._observer.begin(
            first_rows[-1],
            with_logits,
            sorted({layer for sequence, _ in parts for layer in sequence.norm_layers}),
            sorted({layer for sequence, _ in parts for layer in sequence.state_layers}),
            acted,
            self._act if acted else None,
        )
        has_run = self._context.run([part for _, part in parts])
        self._observer.end()
        if not has_run:
            return False
        for first_row, (sequence, part) in zip(first_rows, parts, strict=False):
            sequence.observe(first_row, len(part.token_ids), self._observer.norms, self._observer.states)
            self._slots.set_ready(sequence.slot, sequence.num_unchanged)
        for row, sequence in zip(with_logits, [s for s, part in parts if part.has_logits], strict=True):
            self._go_on(sequence, row)
        return True

    def _act(self, layer: int, states: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._interventions.act(layer, states, _refuse_rerun)

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

    def _prune(self, group: Any) -> None:
        """Stop samples that the pruner of their request chooses, when the shortest of them has come far enough."""
        members = [sequence for sequence in self._running if sequence.pending.sample_group is group]
        num_tokens = min((member.num_generated for member in members), default=0)
        if not members:
            self._pruned_after.pop(group, None)
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
        plans = sequence.pending.request.plans
        report = self._interventions.report(sequence, max(0, sequence.num_generated - 1)) if plans.all() else {}
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
        if sequence.pending.request.plans.all():
            self._interventions.remove(sequence)
        kept = sequence.num_unchanged
        self._context.cut(sequence.slot, kept)
        self._slots.release(sequence.slot, sequence.token_ids[:kept])

    def _make_room(self) -> None:
        """Forget what nobody runs, else send back the sequence that came last.

        Raises:
            MemoryLimitError: One sequence alone does not fit.
        """
        dropped = self._slots.drop_idle()
        if dropped is not None:
            self._context.cut(dropped, 0)
            return
        if len(self._running) == 1:
            msg = (
                f"The context of {self._context.num_cells} tokens has no room for one more. "
                "Raise `context_length` of `engine_kwargs`, or shorten the messages."
            )
            raise MemoryLimitError(msg)
        last = self._running.pop()
        self._context.cut(last.slot, 0)
        self._slots.release(last.slot, ())
        last.num_computed = 0
        with self._changed:
            self._waiting.appendleft(last)


def _refuse_rerun(*_: Any) -> Tensor:
    msg = "llama.cpp cannot run a layer again"
    raise AssertionError(msg)  # refused by `check`


def _pending(sequence: PendingSequence | RunningSequence) -> PendingSequence:
    return sequence.pending if isinstance(sequence, RunningSequence) else sequence


def _end(pending: PendingSequence, error: BaseException) -> None:
    """End a sequence with an error."""
    if not pending.future.done():
        pending.future.set_exception(error)

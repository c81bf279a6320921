"""One sequence to generate, on its way through the queue of `batching`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field

from langnorm.engines.requests import Completion, Delta, Request
from langnorm.engines.sample_group import SampleGroup


@dataclass(eq=False, slots=True)
class PendingSequence:
    """One sequence to generate, from its request to its end.

    Attributes:
        request: The request it belongs to.
        sample: Which of the request's `n` samples it is.
        seed: What its random numbers come from, together with `sample`.
        sink: Called on the worker's thread with what a streamed sequence gained.
        sample_group: All samples of the request, where some of them may be stopped early.
        future: Its completion, or the error that ended it.
        is_cancelled: Set from any thread; the sequence then stops within one step.
        num_restarts: How often it was restarted because others joined its batch.
    """

    request: Request
    sample: int
    seed: int
    sink: Callable[[Delta], None] | None = None
    sample_group: SampleGroup | None = None
    future: Future[Completion] = field(default_factory=Future)
    is_cancelled: bool = False
    num_restarts: int = 0
    _sent: str = ""
    _num_repeated: int = 0
    _num_rows_sent: int = 0
    _num_rows_repeated: int = 0
    _has_strayed: bool = False

    def cancel(self) -> None:
        """Stop the sequence within one step, or before it starts."""
        self.is_cancelled = True

    def begin(self) -> None:
        """Note that the sequence is run from its start, maybe not for the first time."""
        self._num_repeated = self._num_rows_repeated = 0

    @property
    def has_sent(self) -> bool:
        """Whether text of it has been handed to a reader, who cannot unread it."""
        return bool(self._sent)

    def send(self, delta: Delta) -> None:
        """Hand new text to the reader of a stream, without what an earlier run of the sequence has sent."""
        assert self.sink
        pieces = []
        for token, piece in delta.pieces:
            sent_before = self._sent[self._num_repeated : self._num_repeated + len(piece)]
            self._has_strayed |= not piece.startswith(sent_before)
            self._num_repeated += len(piece)
            if new := piece[len(sent_before) :]:
                self._sent += new
                pieces.append((token, new))
        rows = delta.norms[max(0, self._num_rows_sent - self._num_rows_repeated) :]
        self._num_rows_repeated += len(delta.norms)
        self._num_rows_sent += len(rows)
        if self._has_strayed:
            self.cancel()  # in another batch a nearly even choice may fall otherwise; what was read cannot be unsaid
        elif pieces or rows or delta.completion:
            self.sink(Delta(tuple(pieces), delta.completion, rows))

    def finish(self, completion: Completion) -> None:
        """End the sequence with its completion."""
        if self._has_strayed:
            self.finish_cancelled()
        else:
            if self.sample_group:
                self.sample_group.end(self.sample, completion)
            self.future.set_result(completion)

    def finish_cancelled(self) -> None:
        """End the sequence without a completion: nobody waits for it, or its reader is told why there is none."""
        if self._has_strayed:
            msg = "The batch of this stream failed, and its text came out otherwise when it was run again. Ask again."
            self.future.set_exception(RuntimeError(msg))
        else:
            self.future.set_exception(CancelledError())

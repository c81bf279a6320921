"""One sequence to generate, on its way through the queue."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from langnorm.engines.requests import Completion, Delta, Request
from langnorm.engines.transformers.sample_group import SampleGroup


@dataclass(eq=False, slots=True)
class PendingSequence:
    """One sequence to generate.

    Attributes:
        request: The request it belongs to.
        sample: Which of the request's `n` samples it is.
        seed: What its random numbers come from, together with `sample`.
        sink: Called on the worker's thread with what a streamed row gained.
        sample_group: What the samples of a request know of each other, where some may be stopped early.
        future: Its completion, or the error that ended it.
        is_cancelled: Set from any thread; the row then stops within one step.
        num_restarts: How often it was begun anew because others joined.
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
    _has_strayed: bool = False

    def cancel(self) -> None:
        """Stop the row within one step, or before it starts."""
        self.is_cancelled = True

    def begin(self) -> None:
        """Note that the row is run from its start, maybe not for the first time."""
        self._num_repeated = 0

    @property
    def has_sent(self) -> bool:
        """Whether somebody has already read of it."""
        return bool(self._sent)

    def send(self, delta: Delta) -> None:
        """Hand a streamed row's gain to its reader, without the text that an attempt before this one has sent."""
        assert self.sink
        pieces = []
        for token, piece in delta.pieces:
            known = self._sent[self._num_repeated : self._num_repeated + len(piece)]
            self._has_strayed |= not piece.startswith(known)
            self._num_repeated += len(piece)
            if new := piece[len(known) :]:
                self._sent += new
                pieces.append((token, new))
        if self._has_strayed:
            self.cancel()  # in another batch a nearly even choice may fall otherwise; what was read cannot be unsaid
        elif pieces or delta.completion:
            self.sink(Delta(tuple(pieces), delta.completion))

    def finish(self, completion: Completion) -> None:
        """End the row."""
        if self._has_strayed:
            msg = "The batch of this stream failed, and its text came out otherwise when it was run again. Ask again."
            self.future.set_exception(RuntimeError(msg))
        else:
            if self.sample_group:
                self.sample_group.end(self.sample, completion)
            self.future.set_result(completion)

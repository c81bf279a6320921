"""An engine with a queue: calls of all kinds submit sequences to it, and each waits for its own."""

from __future__ import annotations

import asyncio
import queue
import secrets
from abc import abstractmethod
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from langnorm.engines.base import BaseEngine
from langnorm.engines.deadline import Deadline
from langnorm.engines.requests import Completion, Delta, Request, Response
from langnorm.engines.sample_group import SampleGroup
from langnorm.engines.sequence import PendingSequence

_MOST_QUEUED = 1024  # sequences of one call, unless a batch may hold more


class QueuedEngine(BaseEngine):
    """Runs sequences in the order in which they come, on a thread of its own."""

    @abstractmethod
    def _enqueue(self, sequences: Sequence[PendingSequence]) -> None:
        """Queue sequences, whose requests were checked."""

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Return the responses in the order of the requests, which share forward passes.

        Raises:
            PromptError: A prompt is empty, does not fit into the context, or has a token that the model does not know.
            OptionError: A layer is outside the model.
            TimeoutError: A request took longer than its timeout; no other request is affected by it.
        """
        completions: list[list[Completion]] = [[] for _ in requests]
        deadlines = [Deadline(request.timeout, request.since) for request in requests]
        for portion in self._portions(requests):
            self._enqueue([sequence for _, sequence in portion])
            try:
                for number, sequence in portion:
                    completions[number].append(deadlines[number].result(sequence.future))
            finally:
                _cancel(portion)  # without effect on sequences that are done
        return [Response(tuple(group)) for group in completions]

    async def agenerate(self, requests: Sequence[Request]) -> list[Response]:
        """Return what `generate` returns; cancelling stops the generation."""
        completions: list[list[Completion]] = [[] for _ in requests]
        deadlines = [Deadline(request.timeout, request.since) for request in requests]
        for portion in self._portions(requests):
            self._enqueue([sequence for _, sequence in portion])
            try:
                for number, sequence in portion:
                    async with deadlines[number].limit():
                        completions[number].append(await asyncio.wrap_future(sequence.future))
            finally:
                _cancel(portion)
        return [Response(tuple(group)) for group in completions]

    def stream(self, request: Request) -> Generator[Delta]:
        """Yield the text of the first sample as it is generated; closing the iterator stops it."""
        deltas: queue.SimpleQueue[Delta | BaseException] = queue.SimpleQueue()
        sequence, deadline = self._submit_stream(request, deltas.put), Deadline(request.timeout, request.since)
        try:
            while True:
                delta = deadline.next_of(deltas)
                if isinstance(delta, BaseException):
                    raise delta
                yield delta
                if delta.completion:
                    return
        finally:
            sequence.cancel()

    async def astream(self, request: Request) -> AsyncGenerator[Delta]:
        """Yield what `stream` yields."""
        deltas: asyncio.Queue[Delta | BaseException] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(delta: Delta | BaseException) -> None:
            with suppress(RuntimeError):  # the loop was closed: nobody reads any more
                loop.call_soon_threadsafe(deltas.put_nowait, delta)

        sequence, deadline = self._submit_stream(request, put), Deadline(request.timeout, request.since)
        try:
            while True:
                async with deadline.limit():
                    delta = await deltas.get()
                if isinstance(delta, BaseException):
                    raise delta
                yield delta
                if delta.completion:
                    return
        finally:
            sequence.cancel()

    def _portions(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, PendingSequence]]]:
        """Yield the sequences of requests, each with the number of its request, as many at a time as are to be queued.

        A million samples are nothing that a request with a timeout could wait for, not even to be queued.
        """
        for request in requests:
            self.check(request)
        sequences = ((number, sequence) for number, request in enumerate(requests) for sequence in _sequences(request))
        size = max([_MOST_QUEUED, *(request.max_batch_size for request in requests)])
        while portion := list(islice(sequences, size)):
            yield portion

    def _submit_stream(self, request: Request, sink: Any) -> PendingSequence:
        self.check(request)
        sequence = PendingSequence(request, 0, _seed(request), sink)

        def report(future: Any) -> None:
            if not future.cancelled() and (error := future.exception()):
                sink(error)

        sequence.future.add_done_callback(report)
        self._enqueue([sequence])
        return sequence


def _seed(request: Request) -> int:
    return secrets.randbits(63) if request.sampling.seed is None else request.sampling.seed


def _sequences(request: Request) -> Iterator[PendingSequence]:
    """Yield the samples of a request."""
    seed, group = _seed(request), SampleGroup(request.pruner) if request.pruner else None
    for sample in range(request.sampling.n):
        yield PendingSequence(request, sample, seed, sample_group=group)


def _cancel(portion: Sequence[tuple[int, PendingSequence]]) -> None:
    for _, sequence in portion:
        sequence.cancel()

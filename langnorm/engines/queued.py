"""An engine with a queue: calls of all kinds submit sequences to it, and each waits for its own."""

from __future__ import annotations

import asyncio
import queue
from abc import abstractmethod
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from langnorm.engines.base import BaseEngine
from langnorm.engines.deadline import Deadline
from langnorm.engines.requests import Delta, Request, Response
from langnorm.engines.samples_to_draw import SamplesToDraw, new_seed
from langnorm.engines.sequence import PendingSequence


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
        deadlines = [Deadline(request.timeout, request.since) for request in requests]
        for request in requests:
            self.check(request)
        samples = SamplesToDraw(requests)
        while portion := self._enqueue_next(samples):
            try:
                for number, sequence in portion:
                    samples.add(number, deadlines[number].result(sequence.future))
            finally:
                _cancel(portion)  # without effect on sequences that are done
        return samples.responses()

    async def agenerate(self, requests: Sequence[Request]) -> list[Response]:
        """Return what `generate` returns; cancelling stops the generation."""
        deadlines = [Deadline(request.timeout, request.since) for request in requests]
        for request, deadline in zip(requests, deadlines, strict=True):
            await self._acheck(request, deadline)
        samples = SamplesToDraw(requests)
        while portion := await self._aenqueue_next(samples):
            try:
                for number, sequence in portion:
                    async with deadlines[number].limit():
                        samples.add(number, await asyncio.wrap_future(sequence.future))
            finally:
                _cancel(portion)
        return samples.responses()

    def stream(self, request: Request) -> Generator[Delta]:
        """Yield the text of the first sample as it is generated; closing the iterator stops it."""
        deltas: queue.SimpleQueue[Delta | BaseException] = queue.SimpleQueue()
        deadline = Deadline(request.timeout, request.since)
        self.check(request)
        sequence = self._submit_stream(request, deltas.put)
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

        deadline = Deadline(request.timeout, request.since)
        await self._acheck(request, deadline)
        sequence = self._submit_stream(request, put)
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

    async def _acheck(self, request: Request, deadline: Deadline) -> None:
        """Do what `check` does, beside the event loop where the model may be run for that: to try out a lens."""
        if not request.lens_layers:
            self.check(request)
            return
        async with deadline.limit():
            await asyncio.to_thread(self.check, request)

    def _enqueue_next(self, samples: SamplesToDraw) -> list[tuple[int, PendingSequence]]:
        """Queue the samples that are to be run now, and return them; none when all requests have what they need."""
        # Other calls, whose windows have ended with ours, decide in this moment too.
        with self.preparing() if samples.has_windows else nullcontext():
            portion = samples.next_portion()
        if portion:
            self._enqueue([sequence for _, sequence in portion])
        return portion

    async def _aenqueue_next(self, samples: SamplesToDraw) -> list[tuple[int, PendingSequence]]:
        """Do what `_enqueue_next` does, beside the event loop where answers have to be read for that."""
        if not samples.has_windows:
            return self._enqueue_next(samples)
        with self.preparing():
            portion = await asyncio.to_thread(samples.next_portion)
        if portion:
            self._enqueue([sequence for _, sequence in portion])
        return portion

    def _submit_stream(self, request: Request, sink: Any) -> PendingSequence:
        sequence = PendingSequence(request, 0, new_seed(request), sink)

        def report(future: Any) -> None:
            if not future.cancelled() and (error := future.exception()):
                sink(error)

        sequence.future.add_done_callback(report)
        self._enqueue([sequence])
        return sequence


def _cancel(portion: Sequence[tuple[int, PendingSequence]]) -> None:
    for _, sequence in portion:
        sequence.cancel()

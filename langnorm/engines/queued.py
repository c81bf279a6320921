"""An engine with a queue of sequences: calls of all kinds submit to it and wait for their own."""

from __future__ import annotations

import asyncio
import queue
import secrets
from abc import abstractmethod
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import suppress
from typing import Any

from langnorm.engines.base import BaseEngine
from langnorm.engines.deadline import Deadline
from langnorm.engines.requests import Delta, Request, Response
from langnorm.engines.transformers.sample_group import SampleGroup
from langnorm.engines.transformers.sequence import PendingSequence


class QueuedEngine(BaseEngine):
    """Runs sequences in the order in which they come, on a thread of its own."""

    @abstractmethod
    def _enqueue(self, sequences: Sequence[PendingSequence]) -> None:
        """Queue sequences whose requests were checked."""

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Return the responses in the order of the requests, which share forward passes.

        Raises:
            PromptError: A prompt is empty, does not fit into the context, or has a token that the model does not know.
            OptionError: A request asks for what this engine cannot do.
            TimeoutError: A request took longer than its timeout; no other request is affected by it.
        """
        sequences = self._submit(requests)
        try:
            deadlines = [Deadline(request.timeout) for request in requests]
            completions = [
                [deadline.wait(sequence.future.result) for sequence in group]
                for deadline, group in zip(deadlines, sequences, strict=True)
            ]
        finally:
            _cancel(sequences)  # without effect on sequences that are done
        return [Response(tuple(group)) for group in completions]

    async def agenerate(self, requests: Sequence[Request]) -> list[Response]:
        """Return what `generate` returns; cancelling stops the generation."""
        sequences = self._submit(requests)
        try:
            completions = []
            deadlines = [Deadline(request.timeout) for request in requests]
            for deadline, group in zip(deadlines, sequences, strict=True):
                async with deadline.limit():
                    completions.append([await asyncio.wrap_future(sequence.future) for sequence in group])
        finally:
            _cancel(sequences)
        return [Response(tuple(group)) for group in completions]

    def stream(self, request: Request) -> Generator[Delta]:
        """Yield the text of the first sample as it is generated; closing the iterator stops it."""
        deltas: queue.SimpleQueue[Delta | BaseException] = queue.SimpleQueue()
        sequence, deadline = self._submit_stream(request, deltas.put), Deadline(request.timeout)
        try:
            while True:
                delta = deadline.wait(lambda timeout: deltas.get(timeout=timeout))
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

        sequence, deadline = self._submit_stream(request, put), Deadline(request.timeout)
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

    def _submit(self, requests: Sequence[Request]) -> list[list[PendingSequence]]:
        for request in requests:
            self.check(request)
        sequences = []
        for request in requests:
            seed = _seed(request)
            group = SampleGroup(request.pruner) if request.pruner else None
            samples = range(request.sampling.n)
            sequences.append([PendingSequence(request, sample, seed, sample_group=group) for sample in samples])
        self._enqueue([sequence for group in sequences for sequence in group])
        return sequences

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


def _cancel(sequences: Sequence[Sequence[PendingSequence]]) -> None:
    for group in sequences:
        for sequence in group:
            sequence.cancel()

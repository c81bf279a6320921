"""The samples that some requests still need, some at a time, and those that they have."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from itertools import islice

from langnorm.engines.requests import Completion, Request, Response
from langnorm.engines.sample_group import SampleGroup
from langnorm.engines.sequence import PendingSequence

_MOST_QUEUED = 1024  # sequences of one call, unless a batch may hold more


class SamplesToDraw:
    """Hands out the sequences of requests: all of them, or window by window where a request has windows.

    A million samples are nothing that a request with a timeout could wait for, not even to be queued; so they come in
    portions. The windows of several requests are in one portion, so that they run together.

    Args:
        requests: The requests, checked.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests = requests
        self._left = [_sequences(request) for request in requests]
        self._completions: list[list[Completion]] = [[] for _ in requests]
        self._settled: set[int] = set()  # numbers of requests whose windows have sufficed
        self.has_windows = any(request.windows for request in requests)
        """Whether samples decide how many others are drawn."""
        self._size = max([_MOST_QUEUED, *(request.max_batch_size for request in requests)])

    def next_portion(self) -> list[tuple[int, PendingSequence]]:
        """Return the sequences to run now, each with the number of its request, when those before have ended.

        There are none when all requests have what they need.
        """
        portion: list[tuple[int, PendingSequence]] = []
        for number, left in enumerate(self._left):
            most = min(self._size - len(portion), self._most_of(number))
            portion += [(number, sequence) for sequence in islice(left, most)]
        return portion

    def add(self, number: int, completion: Completion) -> None:
        """Append a sample to those of the request with this number; they come in order."""
        self._completions[number].append(completion)

    def responses(self) -> list[Response]:
        """Return what the requests have, in their order."""
        return [Response(tuple(completions)) for completions in self._completions]

    def _most_of(self, number: int) -> int:
        """Return how many samples of a request may be run now."""
        request, completions = self._requests[number], self._completions[number]
        if number in self._settled:
            return 0
        if request.windows is None or len(completions) == request.sampling.n:
            return request.sampling.n
        num_over = len(completions) % request.windows.size
        if completions and not num_over and request.windows.is_enough(completions):
            self._settled.add(number)
            return 0
        return request.windows.size - num_over


def new_seed(request: Request) -> int:
    """Return the seed of a request: the one that it names, or one drawn for it."""
    return secrets.randbits(63) if request.sampling.seed is None else request.sampling.seed


def _sequences(request: Request) -> Iterator[PendingSequence]:
    """Yield the samples of a request."""
    seed, group = new_seed(request), SampleGroup(request.pruner) if request.pruner else None
    for sample in range(request.sampling.n):
        yield PendingSequence(request, sample, seed, sample_group=group)

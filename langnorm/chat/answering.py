"""What answers a call: an engine of this process, or whatever else gives messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Protocol

from langchain_core.outputs import ChatGenerationChunk, ChatResult

from langnorm.chat.chunks import astream_chunks, stream_chunks
from langnorm.chat.preparing import PreparedCall
from langnorm.chat.results import build_result


class Answering(Protocol):
    """One call, ready to be answered."""

    def generate(self) -> ChatResult:
        """Return the messages."""

    async def agenerate(self) -> ChatResult:
        """Return the messages; cancelling stops the generation."""

    def stream(self) -> Iterator[ChatGenerationChunk]:
        """Yield the message of a call with `n=1` in chunks; closing the iterator stops the generation."""

    def astream(self) -> AsyncGenerator[ChatGenerationChunk]:
        """Yield what `stream` yields."""


class LocalAnswering:
    """A call that an engine of this process answers.

    Args:
        call: The call.
    """

    def __init__(self, call: PreparedCall) -> None:
        self._call = call

    def generate(self) -> ChatResult:
        """Return the messages."""
        return build_result(self._call, self._call.engine.generate([self._call.request])[0])

    async def agenerate(self) -> ChatResult:
        """Return the messages; cancelling stops the generation."""
        (response,) = await self._call.engine.agenerate([self._call.request])
        # Reading long answers, or ranking many, takes its time, which the event loop has not.
        return await asyncio.to_thread(build_result, self._call, response)

    def stream(self) -> Iterator[ChatGenerationChunk]:
        """Yield the message in chunks; closing the iterator stops the generation."""
        return stream_chunks(self._call)

    def astream(self) -> AsyncGenerator[ChatGenerationChunk]:
        """Yield what `stream` yields."""
        return astream_chunks(self._call)

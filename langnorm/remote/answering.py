"""What answers a call: a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langnorm.chat.servers import AUTO_MODEL
from langnorm.errors import RemoteError
from langnorm.remote.http import Address
from langnorm.wire.answers import read_choice, read_delta

_PATH = "chat/completions"
_STREAMED: Mapping[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAnswering:
    """A call that a server answers.

    Attributes:
        address: Of the server.
        model: The name of the model, or `AUTO_MODEL`.
        body: The request.
        timeout: Seconds that the call may take, or None.
        max_retries: How often it is tried again where that may help.
        first_call_index: Number of the first tool call among the chunks of a stream.
    """

    address: Address
    model: str
    body: Mapping[str, Any]
    timeout: float | None
    max_retries: int
    first_call_index: int = 0

    def generate(self) -> ChatResult:
        """Return the messages."""
        return self._read(self.address.call("POST", _PATH, self._request(), **self._limits))

    async def agenerate(self) -> ChatResult:
        """Return the messages; cancelling stops the generation."""
        return self._read(await self.address.acall("POST", _PATH, self._request(), **self._limits))

    def stream(self) -> Generator[ChatGenerationChunk]:
        """Yield the message in chunks; closing the iterator stops the generation."""
        reader = _StreamReader(self)
        with closing(self.address.stream(_PATH, self._request(**_STREAMED), **self._limits)) as events:
            for event in events:
                yield from reader.feed(event)
        yield reader.end()

    async def astream(self) -> AsyncGenerator[ChatGenerationChunk]:
        """Yield what `stream` yields."""
        reader = _StreamReader(self)
        async with aclosing(self.address.astream(_PATH, self._request(**_STREAMED), **self._limits)) as events:
            async for event in events:
                for chunk in reader.feed(event):
                    yield chunk
        yield reader.end()

    @property
    def _limits(self) -> dict[str, Any]:
        return {"timeout": self.timeout, "max_retries": self.max_retries}

    def _request(self, **fields: Any) -> dict[str, Any]:
        named = {} if self.model == AUTO_MODEL else {"model": self.model}
        return {**named, **self.body, **fields}

    def _read(self, answer: Any) -> ChatResult:
        with self.reading():
            name = self.name_in(answer)
            messages = [read_choice(choice, answer.get("usage"), name) for choice in answer["choices"]]
        return ChatResult(generations=[ChatGeneration(message=each, generation_info=_info(each)) for each in messages])

    def name_in(self, answer: Mapping[str, Any]) -> str:
        """Return what messages call the model: what the caller does, if anything, else what the answer does."""
        return str(answer.get("model")) if self.model == AUTO_MODEL else self.model

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read an answer inside the `with` block, and say so where it is none.

        Raises:
            RemoteError: It is something else.
        """
        try:
            yield
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            msg = f"{self.address.base_url} has answered with something else than a completion ({error!r})."
            raise RemoteError(msg) from error


class _StreamReader:
    """Makes chunks of the events of a stream. The last chunk waits for the usage, which some servers send after it."""

    def __init__(self, call: RemoteAnswering) -> None:
        self._call = call
        self._last: tuple[Mapping[str, Any], str] | None = None
        self._usage: Mapping[str, Any] | None = None

    def feed(self, event: Any) -> Iterator[ChatGenerationChunk]:
        """Yield the chunk of an event, if there is one."""
        with self._call.reading():
            self._usage = event.get("usage") or self._usage
            chunks = []
            for choice in event["choices"]:
                name = self._call.name_in(event)
                if choice.get("finish_reason"):
                    self._last = (choice, name)
                else:
                    chunks.append(read_delta(choice, None, name, self._call.first_call_index))
        yield from (ChatGenerationChunk(message=chunk) for chunk in chunks if chunk)

    def end(self) -> ChatGenerationChunk:
        """Return the last chunk."""
        if self._last is None:
            msg = f"{self._call.address.base_url} has broken off its answer. Ask again."
            raise RemoteError(msg)
        choice, name = self._last
        with self._call.reading():
            chunk = read_delta(choice, self._usage, name, self._call.first_call_index)
        assert chunk is not None
        return ChatGenerationChunk(message=chunk, generation_info=_info(chunk))


def _info(message: AIMessage | AIMessageChunk) -> dict[str, Any]:
    return {"finish_reason": message.response_metadata["finish_reason"]}

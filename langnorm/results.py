"""What an engine returns, as LangChain's results and chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langnorm.engines.base import Completion, Delta, Engine, Request, Response
from langnorm.messages import Prompt, Recording, closing_fields, to_message
from langnorm.text import ReasoningSplitter, Segment


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """One prepared call."""

    engine: Engine
    prompt: Prompt
    request: Request
    recording: Recording | None
    model_name: str

    def closing(self, completion: Completion) -> dict[str, Any]:
        """Return what the message of a completion says once."""
        return closing_fields(self.prompt, completion, recording=self.recording, model_name=self.model_name)

    def result(self, response: Response) -> ChatResult:
        """Return the messages of all completions."""
        messages = [to_message(self.prompt, c, self.closing(c)) for c in response.completions]
        return ChatResult(generations=[_generation(message) for message in messages])


class Chunks:
    """Turns what an engine streams into chunks; the last one carries everything that is said once."""

    def __init__(self, call: PreparedCall) -> None:
        self._call = call
        self._splitter = ReasoningSplitter(is_thinking=call.prompt.is_thinking)

    def of(self, delta: Delta) -> Iterator[ChatGenerationChunk]:
        """Yield the chunks of what a request gained."""
        segments = [s for token, piece in delta.pieces for s in self._splitter.feed(token, piece)]
        if delta.completion:
            segments += self._splitter.finish()
        yield from map(_text_chunk, segments)
        if delta.completion:
            closing = self._call.closing(delta.completion)
            message = AIMessageChunk(content="", chunk_position="last", **closing)
            info = {"finish_reason": delta.completion.finish_reason}
            yield ChatGenerationChunk(message=message, generation_info=info)


def _text_chunk(segment: Segment) -> ChatGenerationChunk:
    if segment.part == "reasoning":
        message = AIMessageChunk(content="", additional_kwargs={"reasoning_content": segment.text})
    else:
        message = AIMessageChunk(content=segment.text)
    return ChatGenerationChunk(message=message)


def _generation(message: AIMessage) -> ChatGeneration:
    info = {"finish_reason": message.response_metadata["finish_reason"]}
    return ChatGeneration(message=message, generation_info=info)

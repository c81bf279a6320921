"""What an engine streams, as LangChain's chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, closing

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from langnorm.chat.choosing import Choice, choose_completion
from langnorm.chat.live_norms import LiveNorms
from langnorm.chat.preparing import PreparedCall
from langnorm.chat.results import closing_fields
from langnorm.engines.requests import Delta, Response
from langnorm.text.readers import ParsedAnswer, ReaderEvent
from langnorm.text.reasoning import Segment
from langnorm.trace import KEY


class Chunks:
    """Turns what an engine streams into chunks; the last one carries everything that is said once."""

    def __init__(self, call: PreparedCall, choice: Choice | None = None) -> None:
        self._call = call
        self._choice = choice
        self._reader = call.new_reader()
        self._segments: list[Segment] = []
        recording = call.recording if call.request.streams_norms else None
        self._live = LiveNorms(recording) if recording and recording.keeps_tokens else None

    def of(self, delta: Delta) -> Iterator[ChatGenerationChunk]:
        """Yield the chunks of what a request gained; with the norms of tokens, of those that have some."""
        for token, piece in self._live.add(delta) if self._live else delta.pieces:
            yield from self._of_items(self._reader.feed(token, piece), token)
        if delta.completion:
            yield from self._of_items(self._reader.finish(), len(delta.completion.token_ids))
            answer = ParsedAnswer(self._segments, self._reader.calls)
            fields = closing_fields(self._call, delta.completion, answer, self._choice)
            if self._live and (of_ours := fields["additional_kwargs"].get(KEY)):
                fields["additional_kwargs"][KEY] = self._live.rest(of_ours)
            message = AIMessageChunk(content="", chunk_position="last", **fields)
            info = {"finish_reason": fields["response_metadata"]["finish_reason"]}
            yield ChatGenerationChunk(message=message, generation_info=info)

    def _of_items(self, items: Iterable[ReaderEvent], token: int) -> Iterator[ChatGenerationChunk]:
        """Yield the chunks of what was read with a token; the first has the norms up to that one."""
        for item in items:
            if isinstance(item, Segment):
                self._segments.append(item)
            if chunk := _chunk(item, self._call.first_call_index):
                if self._live and (of_tokens := self._live.take(token)):
                    chunk.message.additional_kwargs[KEY] = of_tokens
                yield chunk


def stream_chunks(call: PreparedCall) -> Iterator[ChatGenerationChunk]:
    """Yield what a call streams; closing the iterator stops the generation."""
    if call.candidates or call.has_beginning:
        yield from _chunks_of_ended(call, call.engine.generate([call.request])[0])
        return
    chunks = Chunks(call)
    with closing(call.engine.stream(call.request)) as deltas:
        for delta in deltas:
            yield from chunks.of(delta)


async def astream_chunks(call: PreparedCall) -> AsyncGenerator[ChatGenerationChunk]:
    """Yield what `stream_chunks` yields."""
    if call.candidates or call.has_beginning:
        (response,) = await call.engine.agenerate([call.request])
        # Reading long answers, or ranking many, takes its time, which the event loop has not.
        for chunk in await asyncio.to_thread(list, _chunks_of_ended(call, response)):
            yield chunk
        return
    chunks = Chunks(call)
    async with aclosing(call.engine.astream(call.request)) as deltas:
        async for delta in deltas:
            for chunk in chunks.of(delta):
                yield chunk


def _chunks_of_ended(call: PreparedCall, response: Response) -> Iterator[ChatGenerationChunk]:
    """Yield a message as a stream that can begin only when its answers have ended.

    That is one that was selected of several, and one that begins with given tokens: a stop text may begin in them.
    """
    choice = choose_completion(call.candidates, response) if call.candidates else None
    completion = choice.completion if choice else call.whole(response).completions[0]
    yield from Chunks(call, choice).of(Delta(tuple(enumerate(completion.pieces)), completion))


def _chunk(item: ReaderEvent, first_call_index: int) -> ChatGenerationChunk | None:
    """Return text, reasoning or some of a call as a chunk of its own; the text of a call's marks has none."""
    if not isinstance(item, Segment):
        index = first_call_index + item.index
        call = tool_call_chunk(name=item.name, args=item.arguments, id=item.id, index=index)
        return ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))
    if item.part == "reasoning":
        message = AIMessageChunk(content="", additional_kwargs={"reasoning_content": item.text})
        return ChatGenerationChunk(message=message)
    return ChatGenerationChunk(message=AIMessageChunk(content=item.text)) if item.part == "answer" else None

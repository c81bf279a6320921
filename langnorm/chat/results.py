"""What an engine returns, as LangChain's messages, results and chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langnorm.chat.prompts import Prompt
from langnorm.engines.base import Completion, Delta, Engine, Request, Response
from langnorm.scores.samples import Sample, sample_of
from langnorm.selection.answers import read_answer
from langnorm.selection.ranking import Candidate, rank_candidates
from langnorm.text.readers import ParsedAnswer, Reader, ReaderEvent, parse_answer
from langnorm.text.reasoning import Segment
from langnorm.text.steps import Splitter, split_steps
from langnorm.trace import KEY, build_trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.norms.baseline import Baseline
    from langnorm.selection.options import Selection

Norms = Literal["steps", "tokens"]


@dataclass(frozen=True, slots=True)
class Recording:
    """What a message says of norms.

    Attributes:
        norms: Whether there is a trace, and whether it keeps the norms of every token.
        layers: The recorded layers.
        splitter: What a step is.
        baseline: What the norms are compared with.
    """

    norms: Norms
    layers: tuple[int, ...]
    splitter: Splitter
    baseline: Baseline


@dataclass(frozen=True, slots=True)
class Choice:
    """What a selected message says of all that were sampled with it.

    Attributes:
        ranking: In plain JSON types.
        tokens: Number of tokens of all of them.
        reasoning_tokens: How many of these came before the answers.
    """

    ranking: dict[str, Any]
    tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """One prepared call.

    Attributes:
        engine: Runs it.
        prompt: The messages, rendered.
        request: What the engine is asked.
        recording: What the messages say of norms, if anything.
        model_name: As the caller named the model.
        new_reader: Returns a reader of one answer.
        has_logprobs: Whether the messages say the log-probabilities.
        selection: How the one message is chosen of the completions, or None where all of them become messages.
        scoring: What is recorded for the selection's score, or None where it reads no norms.
        first_call_index: Number of the first tool call among the chunks of a stream.
    """

    engine: Engine
    prompt: Prompt
    request: Request
    recording: Recording | None
    model_name: str
    new_reader: Callable[[], Reader]
    has_logprobs: bool = False
    selection: Selection | None = None
    scoring: Recording | None = None
    first_call_index: int = 0

    def result(self, response: Response) -> ChatResult:
        """Return the messages of all completions, or that of the selected one."""
        if self.selection:
            return ChatResult(generations=[_generation(self.message(*self.chosen(response)))])
        return ChatResult(generations=[_generation(self.message(c)) for c in response.completions])

    def chosen(self, response: Response) -> tuple[Completion, Choice]:
        """Return the completion that the selection prefers, and what its message says of the others."""
        assert self.selection
        readings = [parse_answer(self.new_reader(), completion.pieces) for completion in response.completions]
        candidates = list(map(self._candidate, response.completions, readings))
        ranking = rank_candidates(self.selection, candidates)
        reasoning = sum(
            _num_reasoning_tokens(reading.segments, candidate.tokens)
            for reading, candidate in zip(readings, candidates, strict=True)
        )
        choice = Choice(ranking.to_dict(), sum(candidate.tokens for candidate in candidates), reasoning)
        return response.completions[ranking.best], choice

    def _candidate(self, completion: Completion, reading: ParsedAnswer) -> Candidate:
        assert self.selection
        logprobs = [token.logprob for token in completion.logprobs] or None
        sample = Sample((), (), logprobs=logprobs, texts=completion.pieces)
        if self.scoring:
            # Looking at candidates leaves no trace: a rule with a state learns from the message that is kept.
            scoring = replace(self.scoring, baseline=self.scoring.baseline.apart())
            sample = sample_of(_trace(completion, reading.segments, scoring), logprobs, completion.pieces)
        calls = [{"name": call.name, "args": call.arguments} for call in reading.calls if call.error is None]
        return Candidate(
            sample=sample,
            answer=read_answer(self.selection.answer, reading.text("answer"), calls),
            tokens=len(completion.token_ids),
            finish_reason=completion.finish_reason,
            key=tuple(completion.token_ids),
        )

    def message(self, completion: Completion, choice: Choice | None = None) -> AIMessage:
        """Return the whole message of a completion."""
        reading = parse_answer(self.new_reader(), completion.pieces)
        fields = self.closing(completion, reading, choice)
        if reasoning := reading.text("reasoning"):
            fields["additional_kwargs"] = fields["additional_kwargs"] | {"reasoning_content": reasoning}
        return AIMessage(
            content=reading.text("answer"),
            tool_calls=[
                tool_call(name=call.name, args=call.arguments, id=call.id)
                for call in reading.calls
                if call.name is not None and call.arguments is not None
            ],
            invalid_tool_calls=[
                invalid_tool_call(name=call.name, args=call.raw, id=call.id, error=call.error)
                for call in reading.calls
                if call.error is not None
            ],
            **fields,
        )

    def closing(self, completion: Completion, reading: ParsedAnswer, choice: Choice | None = None) -> dict[str, Any]:
        """Return what a message says once, when it is complete: usage, metadata and norms.

        A whole message and the last chunk of a streamed one have the same. The usage of one that was selected counts
        the tokens of all that were sampled.
        """
        num_prompt, num_tokens = len(self.prompt.ids), len(completion.token_ids)
        num_reasoning = _num_reasoning_tokens(reading.segments, num_tokens)
        is_calling = completion.finish_reason == "stop" and any(call.error is None for call in reading.calls)
        metadata: dict[str, Any] = {
            "model_name": self.model_name,
            "model_provider": "langnorm",
            "finish_reason": "tool_calls" if is_calling else completion.finish_reason,
        }
        extra: dict[str, Any] = {}
        if completion.logprobs and self.has_logprobs:
            metadata["logprobs"] = {"content": list(self._logprobs(completion))}
        if self.recording:
            trace = _trace(completion, reading.segments, self.recording)
            metadata[KEY] = trace.to_dict()
            if trace.token_norms is not None:
                extra[KEY] = {"token_norms": [list(row) for row in trace.token_norms]}
        if completion.interventions:
            metadata[KEY] = metadata.get(KEY, {}) | completion.interventions
        if choice:
            metadata[KEY] = metadata.get(KEY, {}) | {"selection": choice.ranking}
            num_tokens, num_reasoning = choice.tokens, choice.reasoning_tokens
        usage = UsageMetadata(
            input_tokens=num_prompt,
            output_tokens=num_tokens,
            total_tokens=num_prompt + num_tokens,
            output_token_details=OutputTokenDetails(reasoning=num_reasoning),
        )
        return {"response_metadata": metadata, "additional_kwargs": extra, "usage_metadata": usage}

    def _logprobs(self, completion: Completion) -> Iterator[dict[str, Any]]:
        """Yield OpenAI's entry for each token."""
        tokenizer = self.engine.tokenizer
        for token_id, found in zip(completion.token_ids, completion.logprobs, strict=True):
            top = [_logprob(tokenizer, other, value) for other, value in found.top]
            yield _logprob(tokenizer, token_id, found.logprob) | {"top_logprobs": top}


def _logprob(tokenizer: PreTrainedTokenizerBase, token_id: int, value: float) -> dict[str, Any]:
    text = str(tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    # A token may be part of a character, and then has no text of its own.
    whole = "\ufffd" not in text
    return {"token": text, "bytes": list(text.encode()) if whole else None, "logprob": value}


def _trace(completion: Completion, segments: Sequence[Segment], recording: Recording) -> Any:
    from langnorm.norms.reading import read_norms

    return build_trace(
        len(completion.token_ids),
        recording.layers,
        completion.norms,
        split_steps(segments, recording.splitter),
        read_norms(completion.norms, recording.layers, recording.baseline),
        keep_tokens=recording.norms == "tokens",
    )


def _num_reasoning_tokens(segments: Sequence[Segment], num_tokens: int) -> int:
    """Return how many tokens came before the answer, the marks of the reasoning counted in."""
    if not any(segment.part == "reasoning" for segment in segments):
        return 0
    return next((segment.token for segment in segments if segment.part != "reasoning"), num_tokens)


class Chunks:
    """Turns what an engine streams into chunks; the last one carries everything that is said once."""

    def __init__(self, call: PreparedCall, choice: Choice | None = None) -> None:
        self._call = call
        self._choice = choice
        self._reader = call.new_reader()
        self._segments: list[Segment] = []

    def of(self, delta: Delta) -> Iterator[ChatGenerationChunk]:
        """Yield the chunks of what a request gained."""
        items = [item for token, piece in delta.pieces for item in self._reader.feed(token, piece)]
        if delta.completion:
            items += self._reader.finish()
        for item in items:
            if isinstance(item, Segment):
                self._segments.append(item)
            if chunk := _chunk(item, self._call.first_call_index):
                yield chunk
        if delta.completion:
            reading = ParsedAnswer(self._segments, self._reader.calls)
            closing = self._call.closing(delta.completion, reading, self._choice)
            message = AIMessageChunk(content="", chunk_position="last", **closing)
            info = {"finish_reason": closing["response_metadata"]["finish_reason"]}
            yield ChatGenerationChunk(message=message, generation_info=info)


def stream_chunks(call: PreparedCall) -> Iterator[ChatGenerationChunk]:
    """Yield what a call streams; closing the iterator stops the generation."""
    if call.selection:
        yield from _chunks_of_chosen(call, call.engine.generate([call.request])[0])
        return
    chunks = Chunks(call)
    with closing(call.engine.stream(call.request)) as deltas:
        for delta in deltas:
            yield from chunks.of(delta)


async def astream_chunks(call: PreparedCall) -> AsyncGenerator[ChatGenerationChunk]:
    """Yield what `stream_chunks` yields."""
    if call.selection:
        for chunk in _chunks_of_chosen(call, (await call.engine.agenerate([call.request]))[0]):
            yield chunk
        return
    chunks = Chunks(call)
    async with aclosing(call.engine.astream(call.request)) as deltas:
        async for delta in deltas:
            for chunk in chunks.of(delta):
                yield chunk


def _chunks_of_chosen(call: PreparedCall, response: Response) -> Iterator[ChatGenerationChunk]:
    """Yield the selected message as a stream: it can begin only when all candidates have ended."""
    completion, choice = call.chosen(response)
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


def _generation(message: AIMessage) -> ChatGeneration:
    info = {"finish_reason": message.response_metadata["finish_reason"]}
    return ChatGeneration(message=message, generation_info=info)

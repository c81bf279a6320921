"""Tells reasoning, answer and tool calls apart in what a model writes, token by token.

A reader is fed pieces of text with the number of the token that each came with. It gives back segments, which cover
all visible text, and beside them what tool calls gained. Fed all at once or bit by bit, it gives the same: readers go
letter by letter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from langnorm.text.call_reader import CallReader
from langnorm.text.harmony import HarmonyReader
from langnorm.text.reasoning import Part, ReasoningSplitter, Segment
from langnorm.text.tool_calls import HARMONY, CallChunk, ToolCall, ToolForm, offered_tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ReaderEvent = Segment | CallChunk
"""What a reader yields: some visible text, or what a tool call gained by it."""


class Reader(Protocol):
    """Reads one answer."""

    @property
    def calls(self) -> list[ToolCall]:
        """The calls that are finished."""

    def feed(self, token: int, piece: str) -> Iterator[ReaderEvent]:
        """Yield what is certain now that `piece` has come with the generated token of index `token`."""

    def finish(self) -> Iterator[ReaderEvent]:
        """Yield what could not be told before the end; nothing is fed after this."""


class LetterReader(Protocol):
    """Reads one answer letter by letter."""

    @property
    def calls(self) -> list[ToolCall]:
        """The calls that are finished."""

    def feed_letter(self, token: int, letter: str) -> Iterator[ReaderEvent]:
        """Yield what is certain now that a letter has come with the generated token of index `token`."""

    def finish_letters(self) -> Iterator[ReaderEvent]:
        """Yield what could not be told before the end."""


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A whole answer, told apart.

    Attributes:
        segments: All visible text, in order, with the token and the part of each piece.
        calls: The tool calls, valid or not, in order.
    """

    segments: list[Segment]
    calls: list[ToolCall]

    def text(self, part: Part) -> str:
        """Return all text of one part, of calls with their marks."""
        return "".join(segment.text for segment in self.segments if segment.part == part)


def parse_answer(reader: Reader, pieces: Sequence[str]) -> ParsedAnswer:
    """Return what a reader that has read nothing yet makes of a finished sequence, given the text of each token."""
    items = [item for token, piece in enumerate(pieces) for item in reader.feed(token, piece)]
    items += reader.finish()
    return ParsedAnswer([item for item in items if isinstance(item, Segment)], reader.calls)


def reader_factory(
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[int],
    tools: Sequence[dict[str, Any]],
    form: ToolForm,
    *,
    is_thinking: bool,
) -> Callable[[], Reader]:
    """Return what makes a reader of one answer: by the tokenizer's response template, or else by tags.

    Args:
        tokenizer: The model's.
        prompt_ids: The prompt, which may have opened a part of the answer.
        tools: The tools that are offered.
        form: How the model writes calls, where there is no response template.
        is_thinking: Whether the prompt already opened the reasoning.
    """
    if getattr(tokenizer, "response_template", None):
        from langnorm.text.template_reader import TemplateReader

        prefix_ids = list(prompt_ids)
        offers: Any = list(tools)
        template = _without_needs(tokenizer.response_template)
        return lambda: PieceReader(
            TemplateReader(tokenizer.get_response_parser(template, prefix=prefix_ids, tools=offers))
        )
    offered = offered_tools(tools)
    if form is HARMONY:
        beginning = str(tokenizer.decode(list(prompt_ids[-_LONGEST_HEADER:]), skip_special_tokens=False))
        _, start, prefix = beginning.rpartition("<|start|>assistant")
        prefix = prefix if start else ""
        return lambda: PieceReader(HarmonyReader(prefix, offered if tools else None))
    return lambda: TagReader(is_thinking=is_thinking, form=form if tools else None, tools=tools)


def _without_needs(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a response template without fields that must be there: an answer that is cut off may lack any."""
    fields = {name: {**field, "optional": True} for name, field in template["fields"].items()}
    return {**template, "fields": fields}


_LONGEST_HEADER = 32  # tokens of a prompt that may be the beginning of the answer


class PieceReader:
    """Reads pieces by a reader of letters.

    Args:
        letters: The reader.
    """

    def __init__(self, letters: LetterReader) -> None:
        self._letters = letters

    @property
    def calls(self) -> list[ToolCall]:
        """The calls that are finished."""
        return self._letters.calls

    def feed(self, token: int, piece: str) -> Iterator[ReaderEvent]:
        """Yield what is certain now that `piece` has come with the generated token of index `token`."""
        yield from join_events(event for letter in piece for event in self._letters.feed_letter(token, letter))

    def finish(self) -> Iterator[ReaderEvent]:
        """Yield what could not be told before the end; nothing is fed after this."""
        yield from join_events(self._letters.finish_letters())


def join_events(events: Iterable[ReaderEvent]) -> Iterator[ReaderEvent]:
    """Yield the same with what goes together as one: text of one part and token, and arguments of one call."""
    segments: list[Segment] = []
    chunks: list[CallChunk] = []

    def ready() -> Iterator[ReaderEvent]:
        if segments:
            yield replace(segments[0], text="".join(segment.text for segment in segments))
        if chunks:
            yield replace(chunks[0], arguments="".join(chunk.arguments for chunk in chunks))
        segments.clear()
        chunks.clear()

    for event in events:
        if isinstance(event, Segment):
            last = segments[-1] if segments else None
            goes_on = not last or (last.part, last.token, last.span) == (event.part, event.token, event.span)
            if not goes_on or (chunks and event.part != "tool_call"):
                yield from ready()
            segments.append(event)
        else:
            if chunks and (event.index != chunks[0].index or event.id):
                yield from ready()
            chunks.append(event)
    yield from ready()


class TagReader(PieceReader):
    """Reads reasoning between think tags, and calls in the form of a family.

    Args:
        is_thinking: Whether the prompt already opened the reasoning.
        form: The form of calls; None where no tools are offered, and then marks of calls are text like any other.
        tools: The tools that are offered, in OpenAI's form.
    """

    def __init__(
        self, *, is_thinking: bool = False, form: ToolForm | None = None, tools: Sequence[dict[str, Any]] = ()
    ) -> None:
        calls = CallReader(form, offered_tools(tools)) if form else None
        super().__init__(_TaggedLetters(ReasoningSplitter(is_thinking=is_thinking), calls))


class _TaggedLetters:
    """Reads reasoning, and then calls in the answer."""

    def __init__(self, reasoning: ReasoningSplitter, answer: CallReader | None) -> None:
        self._reasoning = reasoning
        self._answer = answer

    @property
    def calls(self) -> list[ToolCall]:
        """The calls that are finished."""
        return self._answer.calls.finished if self._answer else []

    def feed_letter(self, token: int, letter: str) -> Iterator[ReaderEvent]:
        """Yield what is certain now that a letter has come."""
        yield from self._read(self._reasoning.feed_letter(token, letter))

    def finish_letters(self) -> Iterator[ReaderEvent]:
        """Yield what could not be told before the end."""
        yield from self._read(self._reasoning.finish_letters())
        if self._answer:
            yield from self._answer.finish()

    def _read(self, segments: Iterable[Segment]) -> Iterator[ReaderEvent]:
        for segment in segments:
            if self._answer and segment.part == "answer":
                yield from self._answer.feed(segment.token, segment.text)
            else:
                yield segment

"""Tells reasoning, answer and tool calls apart in what a model writes, token by token.

A reader is fed pieces of text with the number of the token that each came with. It gives back segments, which cover
all visible text, and beside them what tool calls gained. Fed all at once or bit by bit, it gives the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from langnorm.text.marks import PieceBuffer, partial_mark_length, rstrip_pieces
from langnorm.text.reasoning import Part, ReasoningSplitter, Segment
from langnorm.text.tool_calls import CallChunk, CallScanner, ToolCall, ToolForm, begins_call, may_begin_call

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from transformers.utils.chat_parsing import ResponseParser

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
        return lambda: TemplateReader(tokenizer.get_response_parser(prefix=list(prompt_ids), tools=list(tools)))
    return lambda: TagReader(is_thinking=is_thinking, form=form if tools else None)


class TagReader:
    """Reads reasoning between think tags, and calls in the form of a family.

    Args:
        is_thinking: Whether the prompt already opened the reasoning.
        form: The form of calls; None where no tools are offered, and then marks of calls are text like any other.
    """

    def __init__(self, *, is_thinking: bool = False, form: ToolForm | None = None) -> None:
        self._reasoning = ReasoningSplitter(is_thinking=is_thinking)
        self._answer = _AnswerReader(form) if form else None

    @property
    def calls(self) -> list[ToolCall]:
        """The calls that are finished."""
        return self._answer.calls if self._answer else []

    def feed(self, token: int, piece: str) -> Iterator[ReaderEvent]:
        """Yield what is certain now that `piece` has come with the generated token of index `token`."""
        yield from self._read(self._reasoning.feed(token, piece))

    def finish(self) -> Iterator[ReaderEvent]:
        """Yield what could not be told before the end; nothing is fed after this."""
        yield from self._read(self._reasoning.finish())
        if self._answer:
            yield from self._answer.finish()

    def _read(self, segments: Iterator[Segment]) -> Iterator[ReaderEvent]:
        for segment in segments:
            if self._answer and segment.part == "answer":
                yield from self._answer.feed(segment.token, segment.text)
            else:
                yield segment


class _AnswerReader:
    """Tells calls from text in an answer. White space beside a call belongs to neither."""

    def __init__(self, form: ToolForm) -> None:
        self.calls: list[ToolCall] = []
        self._form = form
        self._closing = form.closes or form.opens
        self._undecided = PieceBuffer()
        self._scanner: CallScanner | None = None
        self._span = 0
        self._is_bare = form.is_bare  # whether a call without a mark may still begin
        self._is_after_call = False
        self._has_text = False

    def feed(self, token: int, text: str) -> Iterator[ReaderEvent]:
        self._undecided.add(token, text)
        while True:
            waiting = self._undecided.text
            if self._scanner is None:
                if self._is_bare and may_begin_call(waiting):
                    if not begins_call(waiting):
                        return
                    self._open(mark="")
                    continue
                at = waiting.find(self._form.opens)
                if at < 0:
                    # The end may be the beginning of a mark, and white space before one.
                    rest = waiting[: len(waiting) - partial_mark_length(waiting, self._form.opens)].rstrip()
                    yield from self._show(self._undecided.take(len(rest)))
                    return
                yield from self._show(rstrip_pieces(self._undecided.take(at)))
                yield from self._call(self._undecided.take(len(self._form.opens)))
                self._open(self._form.opens)
            else:
                at = waiting.find(self._closing)
                if at < 0:
                    yield from self._scan(
                        self._undecided.take(len(waiting) - partial_mark_length(waiting, self._closing))
                    )
                    return
                yield from self._scan(self._undecided.take(at))
                yield from self._close(self._form.closes)

    def finish(self) -> Iterator[ReaderEvent]:
        waiting = self._undecided.text
        if self._scanner is None and self._is_bare and may_begin_call(waiting):
            probe = CallScanner(0, id_length=self._form.id_length)
            if not [*probe.feed(waiting), *probe.finish()] or any(call.error for call in probe.calls):
                self._is_bare = False  # an answer in JSON that calls nothing
            else:
                self._open(mark="")
        if self._scanner:
            yield from self._scan(self._undecided.take_all())
            yield from self._close("")
        # White space at the end of an answer stays.
        yield from self._show(self._undecided.take_all())

    def _open(self, mark: str) -> None:
        self._scanner = CallScanner(len(self.calls), mark, self._form.id_length)
        self._is_bare = False

    def _scan(self, pieces: list[tuple[int, str]]) -> Iterator[ReaderEvent]:
        assert self._scanner
        for token, text in pieces:
            yield from self._call([(token, text)])
            yield from self._scanner.feed(text)

    def _close(self, mark: str) -> Iterator[ReaderEvent]:
        assert self._scanner
        yield from self._call(self._undecided.take(len(mark)))
        yield from self._scanner.finish(mark)
        self.calls += self._scanner.calls
        self._scanner = None
        self._span += 1
        self._is_after_call = True

    def _call(self, pieces: list[tuple[int, str]]) -> Iterator[Segment]:
        yield from (Segment("tool_call", text, token, self._span) for token, text in pieces)

    def _show(self, pieces: list[tuple[int, str]]) -> Iterator[Segment]:
        for token, piece in pieces:
            text = piece
            if self._is_after_call and (text := piece.lstrip()):
                # What stood on both sides of a call is not one word.
                text = "\n" + text if self._has_text else text
            if text:
                self._is_after_call, self._has_text = False, True
                self._is_bare = self._is_bare and not text.strip()
                yield Segment("answer", text, token)


class TemplateReader:
    """Reads an answer by the response template that came with a tokenizer.

    Args:
        parser: A new parser of transformers, which knows the prompt.
    """

    def __init__(self, parser: ResponseParser) -> None:
        self.calls: list[ToolCall] = []
        self._parser = parser
        self._token = 0
        self._span = 0
        self._raw = ""
        self._is_part_empty = True
        self._is_broken = False
        self._blank: list[Segment] = []  # white space, which is shown once text follows it

    def feed(self, token: int, piece: str) -> Iterator[ReaderEvent]:
        """Yield what is certain now that `piece` has come with the generated token of index `token`."""
        if not piece:
            return
        self._token = token
        if self._is_broken:
            yield from self._text("answer", piece)
            return
        # By letters, because what stands before the one that cannot be read is not to be lost.
        for number, letter in enumerate(piece):
            try:
                events = self._parser.feed(letter)
            except ValueError:  # what is between the marks
                yield from self._unreadable(letter)
                yield from self._text("answer", piece[number + 1 :])
                return
            yield from self._items(events)

    def finish(self) -> Iterator[ReaderEvent]:
        """Yield what could not be told before the end; nothing is fed after this."""
        if self._is_broken:
            return
        try:
            _, events = self._parser.finalize()
        except ValueError:
            yield from self._unreadable("")
            return
        yield from self._items(events)

    def _items(self, events: Sequence[dict[str, Any]]) -> Iterator[ReaderEvent]:
        for event in events:
            is_call = event["field"] == "tool_calls"
            if event["type"] == "region_open":
                self._raw, self._is_part_empty, self._blank = "", True, []
            elif event["type"] == "region_chunk":
                self._raw += event["text"]
                if is_call:
                    yield Segment("tool_call", event["text"], self._token, self._span)
                else:
                    yield from self._text("answer" if event["field"] == "content" else "reasoning", event["text"])
            elif is_call:
                yield from self._called(event["value"])
                self._span += 1

    def _text(self, part: Part, text: str) -> Iterator[Segment]:
        """Yield a text without the white space at both ends of its part."""
        text = text.lstrip() if self._is_part_empty else text
        if not text:
            return
        self._is_part_empty = False
        visible = text.rstrip()
        if visible:
            yield from self._blank
            self._blank = []
            yield Segment(part, visible, self._token)
        if blank := text[len(visible) :]:
            self._blank.append(Segment(part, blank, self._token))

    def _called(self, value: Any) -> Iterator[CallChunk]:
        """Yield the calls of a region: what transformers makes of it is read as if a model had written it so."""
        scanner = CallScanner(len(self.calls), "tool_calls")
        chunks = [*scanner.feed(json.dumps(value, ensure_ascii=False)), *scanner.finish()]
        self.calls += scanner.calls
        yield from chunks

    def _unreadable(self, piece: str) -> Iterator[ReaderEvent]:
        self._is_broken = True
        scanner = CallScanner(len(self.calls), self._raw + piece)
        yield from scanner.finish()
        self.calls += scanner.calls

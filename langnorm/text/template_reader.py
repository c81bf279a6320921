"""Reads answers by the response template that came with a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from langnorm.text.marks import Letter
from langnorm.text.reasoning import Part, Segment
from langnorm.text.tool_calls import CallChunk, CallList, ToolCall, load_calls, load_json

if TYPE_CHECKING:
    from transformers.utils.chat_parsing import ResponseParser

_SHARE = 256
"""Text is passed on once this share of all before has come. The parser copies its text each time: passing on letter by
letter would take time that grows with the square of the length."""

_UNREADABLE = (ValueError, KeyError, RecursionError)
"""What the parser raises of a text between marks: JSON that is malformed, lacks a key, or has brackets without end."""


class TemplateReader:
    """Reads one answer letter by letter.

    Args:
        parser: A new parser of transformers, which knows the prompt.
    """

    def __init__(self, parser: ResponseParser) -> None:
        self._calls = CallList()
        self._parser = parser
        self._waiting: list[Letter] = []  # what the parser has not seen
        self._passed: list[str] = []  # the letters that it has seen
        self._unassigned: list[Letter] = []  # what it has seen and said nothing of: marks, or beginnings of them
        self._raw: list[str] = []  # the call that is open, with its mark
        self._body: list[str] = []  # the same without it
        self._is_part_empty = True
        self._is_broken = False
        self._blank: list[Letter] = []  # white space, which is shown once text follows it
        self._span = 0

    @property
    def calls(self) -> list[ToolCall]:
        """The calls that are finished."""
        return self._calls.finished

    def feed_letter(self, token: int, letter: str) -> Iterator[Segment | CallChunk]:
        """Yield what is certain now that a letter has come with the generated token of index `token`."""
        if self._is_broken:
            yield from self._text("answer", [(token, letter)])
            return
        self._waiting.append((token, letter))
        if len(self._waiting) > len(self._passed) // _SHARE:
            yield from self._pass_on()

    def finish_letters(self) -> Iterator[Segment | CallChunk]:
        """Yield what could not be told before the end."""
        if self._waiting:
            yield from self._pass_on()
        if self._is_broken:
            return
        try:
            _, events = self._parser.finalize()
        except _UNREADABLE:
            yield from self._unreadable()
            return
        yield from self._read(events, is_end=True)

    def _pass_on(self) -> Iterator[Segment | CallChunk]:
        letters, self._waiting = self._waiting, []
        self._passed += (letter for _, letter in letters)
        self._unassigned += letters
        try:
            events = self._parser.feed(_join(letters))
        except _UNREADABLE:
            yield from self._unreadable()
        else:
            yield from self._read(events)

    def _read(self, events: Sequence[dict[str, Any]], *, is_end: bool = False) -> Iterator[Segment | CallChunk]:
        for event in events:
            is_call = event["field"] == "tool_calls"
            if event["type"] == "region_open":
                self._is_part_empty, self._blank, self._raw, self._body = True, [], [], []
            elif event["type"] == "region_chunk":
                mark, letters = self._assign(event["text"])
                if is_call:
                    self._raw += [_join(mark), _join(letters)]
                    self._body.append(event["text"])
                    yield from (Segment("tool_call", letter, token, self._span) for token, letter in letters)
                else:
                    yield from self._text("answer" if event["field"] == "content" else "reasoning", letters)
            elif is_call:
                yield from self._close_call(event["value"], is_end=is_end)

    def _assign(self, text: str) -> tuple[list[Letter], list[Letter]]:
        """Return the letters that are a text, and those before it that are not, which are marks."""
        start = _join(self._unassigned).find(text)
        before, letters = self._unassigned[:start], self._unassigned[start : start + len(text)]
        self._unassigned = self._unassigned[start + len(text) :]
        return before, letters

    def _text(self, part: Part, letters: Iterable[Letter]) -> Iterator[Segment]:
        """Yield a text without the white space at both ends of its part."""
        for item in letters:
            if not item[1].isspace():
                yield from (Segment(part, letter, token) for token, letter in [*self._blank, item])
                self._is_part_empty, self._blank = False, []
            elif not self._is_part_empty:
                self._blank.append(item)

    def _close_call(self, value: Any, *, is_end: bool) -> Iterator[CallChunk]:
        """Yield the calls of a region."""
        self._span += 1
        # Where a mark closes a call, the text ends with that. JSON says itself whether it is whole.
        body = "".join(self._body)
        has_mark = bool(body) and "".join(self._passed[-len(body) :]) != body
        is_cut = is_end and not has_mark and not _is_json(body)
        calls = [] if is_cut else _read_value(value)
        yield from (self._calls.add(name, arguments) for name, arguments in calls)
        if not calls:
            yield self._calls.add_invalid("".join(self._raw))

    def _unreadable(self) -> Iterator[CallChunk]:
        self._is_broken = True
        self._blank, self._is_part_empty = [], False
        yield self._calls.add_invalid("".join(self._raw) + _join(self._unassigned))


def _read_value(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls in what transformers makes of a region: this is read as if a model had written it so."""
    try:
        return load_calls(json.dumps(value, ensure_ascii=False), is_marked=True)
    except (ValueError, TypeError, RecursionError):
        return []


def _is_json(text: str) -> bool:
    try:
        load_json(text)
    except ValueError:
        return False
    return True


def _join(letters: Iterable[Letter]) -> str:
    return "".join(letter for _, letter in letters)

"""Reads the channels of gpt-oss ("harmony"): what is thought, said, and called.

A message is `<|channel|>analysis<|message|>..<|end|>`, and the next one begins with `<|start|>assistant`. The channel
`analysis` is reasoning, `final` the answer; `commentary` is a call where it names a recipient, else part of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import regex

from langnorm.text.call_reader import CallReader, Events
from langnorm.text.marks import FoundMark, Letter, MarkFinder
from langnorm.text.open_calls import JsonCall
from langnorm.text.reasoning import Part, Segment
from langnorm.text.tool_calls import HARMONY, ToolCall

_HEADER_MARKS = ("<|start|>", "<|channel|>", "<|constrain|>")
_ENDS = ("<|end|>", "<|return|>", "<|call|>")
HARMONY_MARKS = (*_HEADER_MARKS, "<|message|>", *_ENDS)
"""The marks that the channels are told by, which must keep their text when tokens are decoded."""

_RECIPIENT = regex.compile(r"to=(?:functions\.)?(?!user\b|assistant\b)([\w./-]+)")
_HEADER_BEGINNING = regex.compile(r"\s*(?:to=[\w./-]+\s*)?")


class HarmonyReader:
    """Reads one answer in channels, letter by letter.

    Args:
        prefix: What the prompt wrote of the answer, after `<|start|>assistant`.
        tools: The schemas of the tools that are offered, by name; None where none are, and calls are text.
    """

    def __init__(self, prefix: str = "", tools: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._answer = CallReader(HARMONY, tools or {})
        self._has_tools = tools is not None
        self._finder = MarkFinder(HARMONY_MARKS)
        self._header: list[Letter] | None = []
        self._has_mark = False
        self._part: Part = "answer"
        self._said: set[Part] = set()
        self._is_new = True
        self._blank: list[Letter] = []
        self._recipient: str | None = None
        self._call: JsonCall | None = None
        self._raw: list[str] = []
        self._is_bad = False  # whether a call has more than its arguments
        self._span = 0
        for letter in prefix:
            list(self.feed_letter(0, letter))

    @property
    def calls(self) -> list[ToolCall]:
        """The calls that are finished."""
        return self._answer.calls.finished

    def feed_letter(self, token: int, letter: str) -> Events:
        """Yield what is certain now that a letter has come."""
        for item in self._finder.feed(token, letter):
            if isinstance(item, FoundMark):
                yield from self._on_mark(item)
            else:
                yield from self._read(item)

    def finish_letters(self) -> Events:
        """Yield what could not be told before the end."""
        for item in self._finder.take_held():
            yield from self._read(item)
        if self._header is not None and not self._has_mark:
            yield from self._begin_answer(self._header)
        yield from self._end_message()
        yield from self._answer.finish()

    def _on_mark(self, mark: FoundMark) -> Events:
        if self._call and not self._call.is_ended and self._call.is_quoting:
            for item in mark.letters:
                yield from self._read(item)
            return
        if mark.text in _HEADER_MARKS:
            if self._header is None:
                yield from self._end_message()
                self._header = []
            self._header += mark.letters
        elif mark.text == "<|message|>" and self._header is not None:
            yield from self._begin_message(self._header, mark.letters)
        else:
            yield from self._end_message(mark.letters)
            self._header = []
        self._has_mark = True

    def _begin_message(self, header: list[Letter], mark: list[Letter]) -> Events:
        text = "".join(letter for _, letter in header)
        recipient = _RECIPIENT.search(text) if self._has_tools else None
        self._header, self._is_new, self._blank = None, True, []
        self._part = "reasoning" if "analysis" in text else "answer"
        self._recipient = str(recipient[1]) if recipient else None
        if self._recipient:
            self._raw = [text, "<|message|>"]
            yield from self._show_call([*header, *mark])

    def _end_message(self, mark: list[Letter] = ()) -> Events:  # type: ignore[assignment]
        self._blank = []
        if not self._recipient:
            return
        yield from self._show_call(mark)
        if self._call and not self._call.is_ended:
            yield from self._call.end(None)
        elif self._is_bad or not self._call:
            yield self._answer.calls.add_invalid("".join(self._raw))
        self._recipient, self._call, self._is_bad = None, None, False
        self._span += 1

    def _begin_answer(self, letters: list[Letter]) -> Events:
        """Read what came without a mark, as where an answer is held to a schema."""
        self._header, self._is_new = None, True
        for item in letters:
            yield from self._read(item)

    def _read(self, item: Letter) -> Events:
        token, letter = item
        if self._header is not None:
            self._header.append(item)
            if not self._has_mark and not _is_header("".join(letter for _, letter in self._header[:200])):
                yield from self._begin_answer(self._header)
        elif self._recipient:
            yield from self._read_call(self._recipient, item)
        elif letter.isspace():
            self._blank += [] if self._is_new else [item]
        else:
            if self._is_new and self._part in self._said:  # two messages are not one word
                yield from self._say((token, "\n"))
            for waiting in [*self._blank, item]:
                yield from self._say(waiting)
            self._said.add(self._part)
            self._is_new, self._blank = False, []

    def _read_call(self, name: str, item: Letter) -> Events:
        letter = item[1]
        yield from self._show_call([item])
        self._raw.append(letter)
        if self._call and not self._call.is_ended:
            yield from self._call.feed(letter)
        elif not self._call and letter == "{" and not self._is_bad:
            self._call = JsonCall(self._answer.calls, name)
            yield self._call.begin()
        elif not letter.isspace():
            self._is_bad = True

    def _say(self, item: Letter) -> Events:
        if self._part == "reasoning" or not self._has_tools:
            yield Segment(self._part, item[1], item[0])
        else:
            yield from self._answer.feed(*item)

    def _show_call(self, letters: list[Letter]) -> Iterator[Segment]:
        return (Segment("tool_call", letter, token, self._span) for token, letter in letters)


def _is_header(text: str) -> bool:
    """Return whether a text without a mark may yet be the beginning of a message's header."""
    return len(text) < 200 and _HEADER_BEGINNING.fullmatch(text, partial=True) is not None

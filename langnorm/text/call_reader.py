"""Tells tool calls from text in an answer, letter by letter.

What it says of a letter depends on the letters before and on nothing else, so that an answer reads the same however it
was cut into pieces. Nothing is looked at again and again: letters that wait are few, or are read once, when all have
come.

An answer goes through these states:

    start      it may be a call as a whole, without a mark
    whole      it is one so far: JSON, or a list of Python calls, that names a tool which is offered
    text       a mark may come
    head       after a mark, or after a call: a call may begin
    call       in a call, or in something between two marks that is none (`langnorm.text.open_calls`)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import regex

from langnorm.text.call_notations import (
    MAX_HEAD,
    JsonNotation,
    Notation,
    call_name,
    call_patterns,
    notation_of,
)
from langnorm.text.marks import FoundMark, Letter, MarkFinder
from langnorm.text.open_calls import JsonCall, Junk, NotedCall, OpenCall
from langnorm.text.reasoning import Segment
from langnorm.text.tool_calls import CallChunk, CallList, ToolForm
from langnorm.text.whole_calls import WholeCalls

Events = Iterator[Segment | CallChunk]


class CallReader:
    """Tells calls from text in one answer. White space beside a call belongs to neither.

    Args:
        form: How the model was taught to write calls.
        tools: The schemas of the tools that are offered, by name.

    Attributes:
        calls: The calls so far.
    """

    def __init__(self, form: ToolForm, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self.calls = CallList(form.id_length)
        self._form, self._tools = form, tools
        self._patterns = call_patterns(form.inner)
        self._queue: deque[Letter] = deque()
        self._again: list[Letter] = []  # letters that are to be read anew, because they are something else
        self._blank: list[Letter] = []  # white space that may stand before a mark
        self._mark: list[Letter] = []  # the mark before the calls that are being read
        self._held: list[Letter] = []  # what waits until it is certain whether a call begins
        self._text_held = ""
        self._span = 0
        self._num_in_span = 0
        self._is_after_call = False
        self._has_text = False
        self._go(self._start)

    def feed(self, token: int, letter: str) -> Events:
        """Yield what is certain now that a letter has come."""
        self._queue.append((token, letter))
        yield from self._run()

    def finish(self) -> Events:
        """Yield what could not be told before the end."""
        while True:
            yield from self._run()
            if self._finder and self._finder.held:  # the beginning of a mark, which will not come
                yield from self._handle(self._finder.take_held())
            elif self._state == self._text:
                # White space at the end of an answer stays.
                yield from self._show(self._take_blank())
                return
            else:
                yield from self._end()
                self._queue.extend(self._again)
                self._again = []

    def _run(self) -> Events:
        while self._queue:
            letter = self._queue.popleft()
            yield from self._handle([letter] if self._finder is None else list(self._finder.feed(*letter)))

    def _handle(self, items: Sequence[Letter | FoundMark]) -> Events:
        """Read letters and marks; where that changes what marks are looked for, what is left is looked at anew."""
        finder = self._finder
        for number, item in enumerate(items):
            yield from self._on_mark(item) if isinstance(item, FoundMark) else self._state(item)
            if self._again or self._finder is not finder:
                later = [*self._again, *_letters(items[number + 1 :]), *(finder.take_held() if finder else ())]
                self._queue.extendleft(reversed(later))
                self._again = []
                return

    def _go(self, state: Callable[[Letter], Events], marks: Iterable[str] = ()) -> None:
        self._state = state
        wanted = [mark for mark in marks if mark]
        self._finder = MarkFinder(wanted) if wanted else None
        self._held, self._text_held = [], ""

    def _go_in_call(self, state: Callable[[Letter], Events]) -> None:
        self._go(state, [self._form.closes or self._form.opens])

    # Before a call

    def _start(self, item: Letter) -> Events:
        if not self._held and item[1].isspace():
            self._blank.append(item)
            return
        self._hold(item)
        text = self._text_held
        if self._form.is_taught_bare and text[0] in "{[" and len(text) <= MAX_HEAD:
            head = self._patterns.head.match(text, partial=True)
            if head and not head.partial and head["outer"]:
                self._mark, self._num_in_span = [], 0
                yield from self._begin(head)
                return
            if head and head.partial:
                return
        whole = WholeCalls.begun(text, set(self._tools), is_any=self._form.is_taught_bare)
        if whole is None:
            self._release()
        elif whole is not ...:
            self._whole_calls, held = whole, self._held
            self._go(self._whole)
            for letter in held:
                yield from self._whole(letter)

    def _whole(self, item: Letter) -> Events:
        self._held.append(item)
        if not self._whole_calls.feed(item[1]):
            self._release()
        yield from ()

    def _release(self) -> None:
        """Read what was held as text."""
        self._again = self._held
        self._go(self._text, [self._form.opens])

    def _text(self, item: Letter) -> Events:
        if item[1].isspace():
            self._blank.append(item)
        else:
            yield from self._show([*self._take_blank(), item])

    # Between two marks

    def _on_mark(self, mark: FoundMark) -> Events:
        if self._state == self._text:
            self._mark, self._num_in_span = mark.letters, 0
            self._go_in_call(self._head)
        elif self._state == self._head:
            yield from self._close_head(mark.letters)
        elif self._open.is_quoting:
            for item in mark.letters:
                yield from self._call(item)
        else:
            yield from self._open.end(mark.text if self._form.closes else "")
            yield from self._close(mark.letters)

    def _head(self, item: Letter) -> Events:
        self._hold(item)
        text = self._text_held
        head = self._patterns.head.match(text, partial=True) if len(text) <= MAX_HEAD else None
        if head is None:
            json = self._patterns.json.match(text)
            yield from self._begin_noted(JsonNotation(), json.end()) if json else self._no_call()
        elif not head.partial:
            yield from self._begin(head)

    def _begin(self, head: regex.Match[str]) -> Events:
        name = call_name(head)
        if name not in self._tools and (built_in := name.removesuffix(".call")) in self._tools:
            name = built_in
        notation = notation_of(head, name, self._tools.get(name, {}))
        if notation:
            yield from self._begin_noted(notation, len(self._text_held))
            return
        yield from self._show_call([*self._take_mark(), *self._held])
        call = JsonCall(self.calls, name, head["id"], (head["outer"] or "").count("{"), _join(self._mark))
        self._open_call(call)
        yield call.begin()

    def _begin_noted(self, notation: Notation, start: int) -> Events:
        """Read a call in a notation, of which what is held from `start` on is the beginning."""
        held, before = self._held, self._text_held[:start]
        yield from self._show_call([*self._take_mark(), *held[:start]])
        self._open_call(NotedCall(self.calls, notation, before, _join(self._mark)))
        self._again = held[start:]

    def _open_call(self, call: OpenCall) -> None:
        self._open = call
        self._num_in_span += 1
        self._go_in_call(self._call)

    def _no_call(self) -> Events:
        held, text = self._held, self._text_held
        if not self._num_in_span:  # what looked like a mark is not one
            self._go(self._text, [self._form.opens])
            yield from self._show([*self._take_blank(), *self._mark])
            self._again = held
        elif self._form.closes:
            yield from self._show_call(held)
            self._open_call(Junk(self.calls, _join(self._mark), text))
        else:
            between = self._patterns.separators.match(text)
            end = between.end() if between else 0
            yield from self._show_call(held[:end])
            self._end_span()
            self._again = held[end:]

    def _close_head(self, mark: list[Letter]) -> Events:
        name = self._text_held.strip()
        if self._num_in_span or name in self._tools:
            yield from self._show_call([*self._take_mark(), *self._held])
            if not self._num_in_span:
                yield self.calls.add(name, {})
            elif not self._patterns.separators.fullmatch(self._text_held):
                yield self.calls.add_invalid(_join(self._mark) + self._text_held)
            yield from self._close(mark)
        else:
            held = self._held
            yield from self._no_call()
            self._again = [*held, *mark]

    def _call(self, item: Letter) -> Events:
        yield from self._show_call([item])
        yield from self._open.feed(item[1])
        if self._open.unread and self._form.closes:
            self._open_call(Junk(self.calls, _join(self._mark), self._open.unread))
        elif self._open.is_ended:
            if self._open.unread:
                yield self.calls.add_invalid(_join(self._mark) + self._open.unread)
            self._go_in_call(self._head)

    def _close(self, mark: list[Letter]) -> Events:
        """End the span of calls that this mark closes."""
        if self._form.closes:
            yield from self._show_call(mark)
        self._end_span()
        if not self._form.closes:  # it is the mark of the next calls
            self._again = mark

    def _end_span(self) -> None:
        self._span += 1
        self._is_after_call = True
        self._go(self._text, [self._form.opens])

    # At the end

    def _end(self) -> Events:
        """Yield what is left in the state at the end; what turns out to be text is read again."""
        held = self._held
        if self._state == self._start:
            self._release()
        elif self._state == self._whole:
            calls = self._whole_calls.read()
            if not calls:
                self._release()
                return
            self._take_blank()
            yield from self._show_call(held)
            yield from (self.calls.add(name, arguments) for name, arguments in calls)
            self._go(self._text)
        elif self._state == self._head and not self._num_in_span:
            if self._text_held.strip()[:1] in ("", "{", "[", "<"):
                yield from self._show_call([*self._take_mark(), *held])
                yield self.calls.add_invalid(_join(self._mark) + self._text_held)
                self._end_span()
            else:
                yield from self._no_call()
        elif self._state == self._head and self._patterns.separators.fullmatch(self._text_held):
            yield from self._show_call(held)
            self._end_span()
        elif self._state == self._head:
            yield from self._no_call()
        else:
            yield from self._open.end(None)
            self._end_span()

    # What is shown

    def _hold(self, item: Letter) -> None:
        self._held.append(item)
        self._text_held += item[1]

    def _take_blank(self) -> list[Letter]:
        blank, self._blank = self._blank, []
        return blank

    def _take_mark(self) -> list[Letter]:
        """Return the mark, if it is not shown yet; white space before it belongs to nothing."""
        self._take_blank()
        return [] if self._num_in_span else self._mark

    def _show_call(self, letters: Iterable[Letter]) -> Iterator[Segment]:
        return (Segment("tool_call", letter, token, self._span) for token, letter in letters)

    def _show(self, letters: Iterable[Letter]) -> Iterator[Segment]:
        for token, letter in letters:
            if self._is_after_call and letter.isspace():
                continue
            # What stood on both sides of a call is not one word.
            yield Segment("answer", f"\n{letter}" if self._is_after_call and self._has_text else letter, token)
            self._is_after_call, self._has_text = False, True


def _letters(items: Iterable[Letter | FoundMark]) -> Iterator[Letter]:
    for item in items:
        if isinstance(item, FoundMark):
            yield from item.letters
        else:
            yield item


def _join(letters: Iterable[Letter]) -> str:
    return "".join(letter for _, letter in letters)

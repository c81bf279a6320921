"""Tells tool calls from text in an answer, letter by letter.

What it says of a letter depends on the letters before and on nothing else, so that an answer reads the same however it
was cut into pieces. Nothing is looked at again and again: letters that wait are few, or are read once when they are all.

An answer goes through these states:

    start      it may be a call as a whole, without a mark
    whole      it is one so far: JSON, or a list of Python calls, that names a tool which is offered
    text       a mark may come
    head       after a mark, or after a call: a call may begin
    json       in arguments that are told while they are written
    tail       between such arguments and the brace that closes their call
    noted      in a call that is read when it is whole
    junk       in something between two marks that is no call
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import regex

from langnorm.text.brackets import Brackets
from langnorm.text.call_notations import (
    MAX_HEAD,
    JsonNotation,
    Notation,
    call_name,
    call_patterns,
    notation_of,
)
from langnorm.text.json_call import JsonCall
from langnorm.text.marks import FoundMark, Letter, MarkFinder
from langnorm.text.reasoning import Segment
from langnorm.text.tool_calls import CallChunk, CallList, ToolForm, load_json
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
        if self._form.is_bare and text[0] in "{[" and len(text) <= MAX_HEAD:
            head = self._patterns.head.match(text, partial=True)
            if head and not head.partial and head["outer"]:
                self._mark, self._num_in_span = [], 0
                yield from self._begin(head)
                return
            if head and head.partial:
                return
        whole = WholeCalls.begun(text, set(self._tools), is_any=self._form.is_bare)
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

    # In what may be a call

    def _on_mark(self, mark: FoundMark) -> Events:
        if self._state == self._text:
            self._mark, self._num_in_span = mark.letters, 0
            self._go_in_call(self._head)
        elif self._state == self._head:
            yield from self._close_head(mark.letters)
        elif self._is_quoting():
            for item in mark.letters:
                yield from self._state(item)
        else:
            yield from self._leave(is_closed=True)
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
        self._json_call = JsonCall(self.calls, name, head["id"])
        self._num_braces = (head["outer"] or "").count("{")
        self._num_in_span += 1
        self._go_in_call(self._json)
        yield self._json_call.begin()

    def _begin_noted(self, notation: Notation, start: int) -> Events:
        """Read a call in a notation, of which what is held from `start` on is the beginning."""
        held, self._raw = self._held, [letter for _, letter in self._held[:start]]
        yield from self._show_call([*self._take_mark(), *held[:start]])
        self._notation, self._letters = notation, []
        self._go_in_call(self._noted)
        self._again = held[start:]

    def _no_call(self) -> Events:
        if not self._num_in_span:  # what looked like a mark is not one
            held = self._held
            self._go(self._text, [self._form.opens])
            yield from self._show([*self._take_blank(), *self._mark])
            self._again = held
        elif self._form.closes:
            held = self._held
            self._junk_letters = []
            self._go_in_call(self._junk)
            self._again = held
        else:
            between = self._patterns.separators.match(self._text_held)
            held, end = self._held, between.end() if between else 0
            yield from self._show_call(held[:end])
            self._end_span()
            self._again = held[end:]

    def _close_head(self, mark: list[Letter]) -> Events:
        name = self._text_held.strip()
        if self._num_in_span or name in self._tools:
            yield from self._show_call([*self._take_mark(), *self._held])
            if not self._num_in_span:
                yield self.calls.add(name, {})
            yield from self._close(mark)
        else:
            held = self._held
            yield from self._no_call()
            self._again = [*held, *mark]

    # In a call

    def _json(self, item: Letter) -> Events:
        yield from self._show_call([item])
        yield from self._json_call.feed(item[1])
        if self._json_call.is_whole and self._num_braces:
            self._tail_letters: list[str] = []
            self._brackets = Brackets(opened="{" * self._num_braces)
            self._go_in_call(self._tail)
        elif self._json_call.is_whole:
            self._go_in_call(self._head)

    def _tail(self, item: Letter) -> Events:
        yield from self._show_call([item])
        self._tail_letters.append(item[1])
        if self._brackets.feed(item[1]):
            yield from self._leave(is_closed=False)
            self._go_in_call(self._head)

    def _noted(self, item: Letter) -> Events:
        yield from self._show_call([item])
        self._letters.append(item[1])
        if self._notation.feed(item[1]):
            yield from self._leave(is_closed=False)

    def _junk(self, item: Letter) -> Events:
        yield from self._show_call([item])
        self._junk_letters.append(item[1])

    def _is_quoting(self) -> bool:
        """Return whether a mark that has come is part of an argument."""
        if self._state == self._json:
            return self._json_call.is_quoting
        if self._state == self._tail:
            return self._brackets.is_quoting
        return self._state == self._noted and self._notation.is_quoting

    def _leave(self, *, is_closed: bool) -> Events:
        """End what is being read inside of the marks."""
        if self._state == self._json:
            yield from self._json_call.break_off()
        elif self._state == self._tail:
            tail = "".join(self._tail_letters)
            if not _is_rest_of_call(tail, self._num_braces):
                yield self.calls.add_invalid(_join(self._mark) + tail)
        elif self._state == self._noted:
            text = "".join(self._letters)
            try:
                calls = self._notation.read(text, is_closed=is_closed)
            except ValueError:
                self._junk_letters = [*self._raw, text]
                self._go_in_call(self._junk)
                if not self._form.closes:
                    yield from self._leave(is_closed=False)
                    self._go_in_call(self._head)
            else:
                yield from (self.calls.add(name, arguments) for name, arguments in calls)
                self._go_in_call(self._head)
            self._num_in_span += 1
        elif self._state == self._junk and not self._form.closes:
            yield self.calls.add_invalid(_join(self._mark) + "".join(self._junk_letters))

    def _close(self, mark: list[Letter]) -> Events:
        """End the span of calls that this mark closes."""
        if self._form.closes:
            yield from self._show_call(mark)
            if self._state == self._junk and (junk := "".join(self._junk_letters)).strip():
                yield self.calls.add_invalid(_join(self._mark) + junk + _join(mark))
            self._end_span()
        else:  # the mark of the next calls
            self._end_span()
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
        elif self._state == self._head:
            yield from self._show_call(held)
            self._end_span()
        else:
            yield from self._leave(is_closed=False)
            yield from self._close([])

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


def _is_rest_of_call(text: str, num_braces: int) -> bool:
    """Return whether a text may follow the arguments: braces, and keys that say nothing of the call."""
    if not text.strip(" \t\r\n}"):
        return True
    try:
        load_json('{"":' * num_braces + "0" + text)
    except ValueError:
        return False
    return True

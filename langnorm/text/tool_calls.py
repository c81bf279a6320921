"""Reads tool calls out of what a model writes, while it writes them.

Families mark calls differently but write much the same between the marks: the name and the arguments as JSON.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolForm:
    """How a family of models writes calls.

    Attributes:
        name: Of the family.
        opens: The mark before a call, or before several.
        closes: The mark after it; empty where the next mark, or the end of the answer, ends it.
        arguments_key: The key beside `"name"`.
        is_list: Whether the calls after one mark are a JSON list.
        is_bare: Whether an answer that begins with a brace is a call, without a mark.
        id_length: Characters of a call's id, all letters and digits, or 0 where any id will do.
    """

    name: str
    opens: str
    closes: str = ""
    arguments_key: str = "arguments"
    is_list: bool = False
    is_bare: bool = False
    id_length: int = 0


HERMES = ToolForm("hermes", "<tool_call>", "</tool_call>")
LLAMA = ToolForm("llama", "<|python_tag|>", arguments_key="parameters", is_bare=True)
MISTRAL = ToolForm("mistral", "[TOOL_CALLS]", is_list=True, id_length=9)
MISTRAL_NAMED = ToolForm("mistral_named", "[TOOL_CALLS]", id_length=9)


def detect_tool_form(chat_template: str) -> ToolForm:
    """Return the form in which a model with this chat template is taught to call tools."""
    if HERMES.opens in chat_template:
        return HERMES
    if MISTRAL.opens in chat_template:
        return MISTRAL_NAMED if "[ARGS]" in chat_template else MISTRAL
    return LLAMA


@dataclass(frozen=True, slots=True)
class CallChunk:
    """What one call gained.

    Attributes:
        index: Number of the call in its answer.
        id: Of the call; in its first chunk only.
        name: Of the tool; in its first chunk only.
        arguments: Some of its arguments' JSON.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A finished call.

    Attributes:
        id: Of the call.
        name: Of the tool; None where it could not be read.
        arguments: By name; None where they could not be read.
        raw: The arguments as the model wrote them; of what could not be read as a call, all of it with its marks.
        error: What is wrong with it, or None.
    """

    id: str
    name: str | None
    arguments: dict[str, Any] | None
    raw: str
    error: str | None = None


# What may stand before the arguments: `{"name": "f", "arguments": ` or `f[ARGS]`.
_HEAD = re.compile(
    r"""[\s\[,;}]*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*(?P<quoted>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*")\s*,
        \s*"(?:arguments|parameters)"\s*:\s*(?=\{)
      | \s*(?P<plain>[^\s\[\]{}",:]+)(?:\[CALL_ID\][^\s\[\]]*)?\[ARGS\]\s*(?=\{)""",
    re.VERBOSE,
)
_REST = re.compile(r"[\s}\],;]*")  # what may stand after all arguments
_NO_CALL = re.compile(r"""\s*(?:[^\s{]|\{\s*(?:[^\s"]|"(?!name"|type"|function"|parameters"|arguments")[^"]*"))""")


def begins_call(text: str) -> bool:
    """Return whether a text without a mark has the beginning of a call, up to its arguments."""
    return _HEAD.match(text) is not None


def may_begin_call(text: str) -> bool:
    """Return whether a text without a mark is a call so far, or may yet become one."""
    return "{" in text and not _NO_CALL.match(text)


class CallScanner:
    """Reads the calls between two marks as their text arrives.

    Args:
        first: Number of the first of them in the answer.
        mark: What stood before them; empty where nothing says that these are calls.
        id_length: See `ToolForm`.
    """

    def __init__(self, first: int, mark: str = "", id_length: int = 0) -> None:
        self.calls: list[ToolCall] = []
        self._first = first
        self._mark = mark
        self._id_length = id_length
        self._text = ""
        self._at = 0  # how far the text has been read
        self._open: _OpenCall | None = None

    def feed(self, text: str) -> Iterator[CallChunk]:
        """Yield what the calls gain from `text`, which follows what was fed before."""
        self._text += text
        while True:
            if self._open is None:
                head = _HEAD.match(self._text, self._at)
                if not head:
                    return
                name = str(json.loads(head["quoted"])) if head["quoted"] else str(head["plain"])
                self._open = _OpenCall(self._number, self._new_id(), name, head.end())
                self._at = head.end()
                yield CallChunk(self._number, self._open.id, name, "")
            end = self._open.end_in(self._text, self._at)
            if more := self._text[self._at : end]:
                yield CallChunk(self._open.index, None, None, more)
            self._at = len(self._text) if end is None else end
            if end is None:
                return
            if spoiler := self._close(end):
                yield CallChunk(self._number - 1, None, None, spoiler)

    def finish(self, mark: str = "") -> Iterator[CallChunk]:
        """Yield what is left when nothing more comes but the closing `mark`.

        A call that breaks off in its arguments gets a bracket that fits nothing: half of the arguments must not pass
        for a whole call, which whoever joins the chunks would otherwise make of them.
        """
        if self._open:
            call, self._open = self._open, None
            spoiler = call.spoiler()
            raw = self._text[call.start :] + spoiler
            self.calls.append(ToolCall(call.id, call.name, None, raw, "The call breaks off in its arguments."))
            yield CallChunk(call.index, None, None, spoiler)
            return
        rest = self._text[self._at :]
        if self.calls and _REST.fullmatch(rest):
            return
        late_calls = [] if self.calls else _load_calls(rest, is_marked=bool(self._mark))
        for name, arguments in late_calls:
            raw = json.dumps(arguments, ensure_ascii=False)
            call_id = self._new_id()
            yield CallChunk(self._number, call_id, name, raw)
            self.calls.append(ToolCall(call_id, name, arguments, raw))
        if not late_calls:
            raw, call_id = self._mark + rest + mark, self._new_id()
            yield CallChunk(self._number, call_id, None, raw)
            self.calls.append(ToolCall(call_id, None, None, raw, "This is not a call with a name and arguments."))

    @property
    def _number(self) -> int:
        return self._first + len(self.calls)

    def _new_id(self) -> str:
        return secrets.token_hex(8)[: self._id_length] if self._id_length else f"call_{secrets.token_hex(12)}"

    def _close(self, end: int) -> str:
        """End the open call, and return what spoils its arguments for those who read them less strictly."""
        call, self._open = self._open, None
        assert call
        raw = self._text[call.start : end]
        arguments, problem, spoiler = None, None, ""
        try:
            arguments = _load_json(raw)
        except ValueError as error:
            problem, spoiler = f"The arguments are not JSON: {error}.", "]"
        self.calls.append(ToolCall(call.id, call.name, arguments, raw + spoiler, problem))
        return spoiler


class _OpenCall:
    """A call whose arguments have begun; it follows their braces and quotes."""

    def __init__(self, index: int, call_id: str, name: str, start: int) -> None:
        self.index, self.id, self.name, self.start = index, call_id, name, start
        self._brackets: list[str] = []
        self._is_in_string = False
        self._is_escaped = False

    def end_in(self, text: str, start: int) -> int | None:
        """Return where the arguments end in `text` from `start` on, or None if they do not."""
        for at in range(start, len(text)):
            character = text[at]
            if self._is_in_string:
                self._is_in_string = self._is_escaped or character != '"'
                self._is_escaped = character == "\\" and not self._is_escaped
            elif character == '"':
                self._is_in_string = True
            elif character in "{[":
                self._brackets.append(character)
            elif character in "}]":
                self._brackets.pop()
                if not self._brackets:
                    return at + 1
        return None

    def spoiler(self) -> str:
        """Return what makes the arguments so far invalid for good."""
        end_of_string = ('\\"' if self._is_escaped else '"') if self._is_in_string else ""
        return end_of_string + ("]" if self._brackets[-1:] == ["{"] else "}")


def _load_json(text: str) -> Any:
    """Return what a JSON text says; line breaks in its strings are allowed.

    Raises:
        ValueError: It is no JSON, or has what a message cannot carry: NaN, infinity, too long a number, too deep lists.
    """

    def refuse(constant: str) -> None:
        msg = f"`{constant}` is not JSON"
        raise ValueError(msg)

    try:
        return json.loads(text, strict=False, parse_constant=refuse)
    except RecursionError as error:
        msg = "it is nested too deeply"
        raise ValueError(msg) from error


def _load_calls(text: str, *, is_marked: bool) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls in a JSON text that is written in an order or with keys of its own; none if it has others.

    Where a mark says that this is a call, its arguments may be missing.
    """
    try:
        value = _load_json(text)
    except ValueError:
        return []
    calls = []
    for item in value if isinstance(value, list) else [value]:
        call = item.get("function", item) if isinstance(item, dict) else {}
        call = call if isinstance(call, dict) else item
        name = call.get("name")
        arguments = call.get("arguments", call.get("parameters", {} if is_marked else None))
        if isinstance(arguments, str):
            try:
                arguments = _load_json(arguments)
            except ValueError:
                return []
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return []
        calls.append((name, arguments))
    return calls

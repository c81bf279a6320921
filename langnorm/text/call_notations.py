"""The notations of calls between the marks: how one begins, where it ends, and what it says.

Letters are followed one by one, so that a closing mark inside of an argument is told from one that closes, and so that
reading a call takes time in proportion to its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, Protocol

import regex

from langnorm.text.brackets import Brackets
from langnorm.text.call_values import coerced, gemma_arguments, python_calls
from langnorm.text.tool_calls import load_calls, load_json

MAX_HEAD = 512
"""Most characters before the arguments of a call. What takes longer is no call, which keeps reading it cheap."""

_NAME = r"[\w./-]+"
_STRING = (  # in which halves of a surrogate pair stand together
    r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    r'|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*"'
)
_BODY_HEADS = rf"""
    (?P<outer>\{{\s*(?:"type"\s*:\s*"function"\s*,\s*)?(?:"function"\s*:\s*\{{\s*)?)
        "name"\s*:\s*(?P<quoted>{_STRING})\s*,\s*"(?:arguments|parameters)"\s*:\s*(?P<json>\{{)
  | (?P<plain>{_NAME})(?:\[CALL_ID\](?P<id>\w*))?(?:\[ARGS\]\s*)?(?P<json>\{{)
  | (?:function)?<｜tool▁sep｜>(?P<plain>{_NAME})\s*(?:```json\s*)?(?P<json>\{{)
  | (?P<plain>{_NAME})(?:<｜tool▁sep｜>\s*|\s*```json\s*)(?P<json>\{{)
  | (?P<id>(?:functions\.)?(?P<plain>{_NAME}):\d+)\s*<\|tool_call_argument_begin\|>\s*(?P<json>\{{)
  | (?P<python>(?P<plain>{_NAME})\()
  | (?P<function><function=(?P<plain>[^<>\n]+)>)
  | (?P<invoke><(?P<dsml>｜DSML｜)?invoke\ name="(?P<plain>[^"\n]+)">)
  | (?P<pairs>(?P<plain>{_NAME})\s*<arg_key>)
  | (?P<gemma>call:(?P<plain>{_NAME})\{{)
"""


class CallPatterns(NamedTuple):
    """What finds calls between marks.

    Attributes:
        head: The beginning of a call up to its arguments, with what may stand before it.
        json: What may stand before a call in JSON.
        separators: All that may stand between two calls.
    """

    head: regex.Pattern[str]
    json: regex.Pattern[str]
    separators: regex.Pattern[str]


@cache
def call_patterns(inner: tuple[str, ...]) -> CallPatterns:
    """Return the patterns of a form.

    Args:
        inner: Marks that may stand around each call.
    """
    others = "".join(f"|{regex.escape(mark)}" for mark in ("```json", "```", *inner))
    separators = rf"(?:[\s\[\],;}}]{others})*"
    return CallPatterns(
        head=regex.compile(f"{separators}(?:{_BODY_HEADS})", regex.VERBOSE),
        json=regex.compile(rf"(?:[\s\],;}}]{others})*(?=(?:\[\s*)*\{{)"),
        separators=regex.compile(separators),
    )


class Notation(Protocol):
    """Follows one call that is read when it is whole."""

    @property
    def is_quoting(self) -> bool:
        """Whether a closing mark would be part of an argument."""

    def feed(self, letter: str) -> bool:
        """Return whether the call ends with this letter."""

    def read(self, text: str, *, is_closed: bool) -> list[tuple[str, dict[str, Any]]]:
        """Return names and arguments of the calls.

        Args:
            text: All letters that were fed.
            is_closed: Whether a mark closed it before its own end.

        Raises:
            ValueError: The text is something else, or breaks off.
        """


class _Bracketed:
    """A notation that ends with its last bracket."""

    def __init__(self, quotes: tuple[str, ...], opened: str) -> None:
        self._brackets = Brackets(quotes, opened)
        self._is_whole = False

    @property
    def is_quoting(self) -> bool:
        """Whether a closing mark would be part of an argument."""
        return self._brackets.is_quoting

    def feed(self, letter: str) -> bool:
        """Return whether the call ends with this letter."""
        self._is_whole = self._brackets.feed(letter)
        return self._is_whole


class JsonNotation(_Bracketed):
    """Calls as JSON with an order or with keys of its own, from the first bracket on."""

    def __init__(self) -> None:
        super().__init__(('"',), "")

    def read(self, text: str, *, is_closed: bool) -> list[tuple[str, dict[str, Any]]]:  # noqa: ARG002
        """Return names and arguments of the calls."""
        if not (calls := load_calls(text, is_marked=True)):
            msg = "it has no name or no arguments"
            raise ValueError(msg)
        return calls


class PythonNotation(_Bracketed):
    """A call as Python writes it, from its first argument on."""

    def __init__(self, name: str) -> None:
        super().__init__(('"', "'"), "(")
        self._name = name

    def read(self, text: str, *, is_closed: bool) -> list[tuple[str, dict[str, Any]]]:  # noqa: ARG002
        """Return names and arguments of the calls."""
        ((_, arguments),) = python_calls(f"f({text}")
        return [(self._name, arguments)]


class GemmaNotation(_Bracketed):
    """A call of FunctionGemma or Gemma 4, after its first brace."""

    def __init__(self, name: str) -> None:
        self._quotes = ("<escape>", '<|"|>')
        super().__init__(self._quotes, "{")
        self._name = name

    def read(self, text: str, *, is_closed: bool) -> list[tuple[str, dict[str, Any]]]:  # noqa: ARG002
        """Return names and arguments of the calls."""
        quote = next((quote for quote in self._quotes if quote in text), self._quotes[0])
        return [(self._name, gemma_arguments("{" + text, quote))]


class TaggedNotation:
    """A call whose arguments stand between tags, after the tag that names it.

    Args:
        name: Of the tool.
        schema: Of its arguments: the tags say nothing of types.
        value_end: The tag after an argument.
        end: The tag after the last argument; empty where the closing mark of the form ends the call.
        key: How the tag before an argument begins.
        key_pattern: What matches all of that tag, with the name of the argument as `key`.
    """

    def __init__(
        self, name: str, schema: Mapping[str, Any], *, value_end: str, end: str, key: str, key_pattern: str
    ) -> None:
        self._name, self._value_end, self._end = name, value_end, end
        properties = schema.get("properties")
        self._properties = properties if isinstance(properties, Mapping) else {}
        self._argument = regex.compile(rf"\s*{key_pattern}(?P<value>.*)", regex.DOTALL)
        self._between = regex.compile(rf"{regex.escape(value_end)}\s*(?={regex.escape(key)})")
        self._longest = len(value_end) + len(end)
        self._recent = ""  # the last letters, white space aside
        self._is_whole = False

    @property
    def is_quoting(self) -> bool:
        """Whether a closing mark would be part of an argument: only the end of one comes before a true one."""
        return self._recent != "" and not self._recent.endswith(tuple(filter(None, (self._value_end, self._end))))

    def feed(self, letter: str) -> bool:
        """Return whether the call ends with this letter."""
        if letter.isspace():
            return False
        # One more than is compared, so that what is full never looks like the beginning.
        self._recent = (self._recent + letter)[-self._longest - 1 :]
        self._is_whole = bool(self._end) and (
            self._recent == self._end or self._recent.endswith(self._value_end + self._end)
        )
        return self._is_whole

    def read(self, text: str, *, is_closed: bool) -> list[tuple[str, dict[str, Any]]]:
        """Return names and arguments of the calls."""
        if not (self._is_whole or is_closed):
            msg = "it breaks off in its arguments"
            raise ValueError(msg)
        text = text.strip().removesuffix(self._end or "\0").rstrip().removesuffix(self._value_end)
        arguments = {}
        for written in self._between.split(text) if text else []:
            match = self._argument.fullmatch(written)
            if not match:
                msg = "it has no arguments in tags"
                raise ValueError(msg)
            key, value = match["key"].strip(), match["value"]
            value = value.removeprefix("\n").removesuffix("\n")
            is_string = match.groupdict().get("string") == "true"
            arguments[key] = value if is_string else coerced(value, self._properties.get(key))
        return [(self._name, arguments)]


def notation_of(head: regex.Match[str], name: str, schema: Mapping[str, Any]) -> Notation | None:
    """Return what follows a call that has begun, or None where its arguments are JSON.

    Args:
        head: A match of `CallPatterns.head`.
        name: Of the tool.
        schema: Of its arguments.
    """
    if head["json"]:
        return None
    if head["python"]:
        return PythonNotation(name)
    if head["gemma"]:
        return GemmaNotation(name)
    if head["function"]:
        return TaggedNotation(
            name,
            schema,
            value_end="</parameter>",
            end="</function>",
            key="<parameter=",
            key_pattern=r"<parameter=(?P<key>[^<>\n]+)>",
        )
    if head["invoke"]:
        own = head["dsml"] or ""
        return TaggedNotation(
            name,
            schema,
            value_end=f"</{own}parameter>",
            end=f"</{own}invoke>",
            key=f"<{own}parameter ",
            key_pattern=rf'<{own}parameter name="(?P<key>[^"\n]+)"(?: string="(?P<string>\w+)")?>',
        )
    return TaggedNotation(
        name,
        schema,
        value_end="</arg_value>",
        end="",
        key="<arg_key>",
        key_pattern=r"(?:<arg_key>)?(?P<key>[^<>]+)</arg_key>\s*<arg_value>",
    )


def call_name(head: regex.Match[str]) -> str:
    """Return the name of the tool that a call which has begun is for."""
    return str(load_json(head["quoted"])) if head["quoted"] else str(head["plain"]).strip()

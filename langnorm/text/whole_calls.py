"""Calls without a mark: an answer that as a whole is JSON, or a list of Python calls, and names a tool that is offered.

Models write them whatever they were taught, Qwen2.5-Coder in a code fence. That a tool is named is what tells them from
an answer in JSON.
"""

from __future__ import annotations

from collections.abc import Collection
from types import EllipsisType
from typing import Any, Self

import regex

from langnorm.text.brackets import Brackets
from langnorm.text.call_notations import MAX_HEAD
from langnorm.text.call_values import python_calls
from langnorm.text.tool_calls import load_calls

_KEYS = "type|function|id|tool_call_id|arguments|parameters"
_BEGINNING = regex.compile(
    rf"""(?:```\w*\s*|<tools>\s*)?
    (?: (?:\[\s*)?\{{\s*"(?:(?:tool_)?name"\s*:\s*"(?P<name>[^"\\]*)"|(?:{_KEYS})"\s*:)
      | \[\s*(?P<python>[\w.]+)\( )""",
    regex.VERBOSE,
)
_ENDS = ("```", "</tools>")


class WholeCalls:
    """Follows an answer that is nothing but calls so far.

    Args:
        is_python: Whether they are written as Python.
        names: The tools that may be called; None where any may.
    """

    def __init__(self, names: Collection[str] | None, *, is_python: bool) -> None:
        self._names = names
        self._is_python = is_python
        self._brackets = Brackets(('"', "'") if is_python else ('"',))
        self._values: list[str] = []
        self._letters: list[str] | None = None  # of the value that has begun
        self._end = ""  # what follows the values

    @classmethod
    def begun(cls, text: str, names: Collection[str], *, is_any: bool) -> Self | EllipsisType | None:
        """Return what follows an answer that begins with a text: None if it is no call, `...` if that is not certain.

        Args:
            text: The beginning of the answer, without white space before it.
            names: The tools that are offered.
            is_any: Whether JSON may also name other tools.
        """
        match = _BEGINNING.match(text, partial=True) if len(text) <= MAX_HEAD else None
        if match is None or match.partial:
            return ... if match else None
        if match["python"]:
            return cls(names, is_python=True) if match["python"] in names else None
        if is_any or match["name"] is None or match["name"] in names:
            return cls(None if is_any else names, is_python=False)
        return None

    def feed(self, letter: str) -> bool:
        """Return whether the answer is nothing but calls so far, with this letter."""
        if self._letters is None:
            if letter in "{[" and not self._end:
                self._letters = []
            elif not self._values or letter.isspace() or (letter in ",;" and not self._end):
                return True
            else:
                self._end += letter
                return any(end.startswith(self._end) for end in _ENDS)
        self._letters.append(letter)
        if self._brackets.feed(letter):
            self._values.append("".join(self._letters))
            self._letters = None
        return True

    def read(self) -> list[tuple[str, dict[str, Any]]]:
        """Return names and arguments of the calls; none if the answer is something else or breaks off."""
        calls: list[tuple[str, dict[str, Any]]] = []
        for value in self._values if self._letters is None else ():
            try:
                found = python_calls(value) if self._is_python else load_calls(value, is_marked=False)
            except ValueError:
                return []
            if not found or any(self._names is not None and name not in self._names for name, _ in found):
                return []
            calls += found
        return calls

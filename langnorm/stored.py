"""What files and messages hold as JSON: read whole, and checked before anything of it is used.

Each form is a pydantic type, and its reader the one place where it is read. What does not fit is an error that says
what, where in it, and how to mend it, however it came to be: cut, edited, of another version, no JSON, no text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypeAliasType

from langnorm.errors import OptionError

MOST_BYTES = 256 * 2**20
"""Largest document that is read: a device that never ends, or a file of weights, is no document."""

PlainJSON = TypeAliasType(
    "PlainJSON",
    "bool | int | Annotated[float, Field(allow_inf_nan=False)] | str | list[PlainJSON] | dict[str, PlainJSON] | None",
)
"""Any value of JSON; its numbers are finite."""

_Document = TypeVar("_Document")


class Stored(BaseModel):
    """Base of what is stored: finite numbers, nothing converted; fields that are not known are left to others."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)


class StoredForm(Generic[_Document]):
    """Reads one form of JSON.

    Args:
        kind: The type that it is read as.
        name: What it is, such as `a profile of this version of langnorm`.
        mend: What to do where something else was given, as a sentence.
    """

    def __init__(self, kind: type[_Document], name: str, mend: str) -> None:
        self._adapter: TypeAdapter[_Document] = TypeAdapter(kind)
        self._name = name
        self._mend = mend

    def parse(self, text: str | bytes, source: str) -> _Document:
        """Return what JSON says.

        Args:
            text: JSON.
            source: Where it is from, for the error, such as the path of a file in backquotes.

        Raises:
            OptionError: It is no JSON, or not of this form.
        """
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            raise OptionError(self._refusal(source, *_first_fault(error))) from error
        except ValueError as error:  # half a surrogate pair in a Python string
            raise OptionError(self._refusal(source, str(error), "")) from error

    def check(self, value: Any, source: str) -> _Document:
        """Return what plain Python values say, as if they had been JSON.

        Raises:
            OptionError: They are not of this form, or cannot be JSON at all.
        """
        try:
            text = to_json(value, inf_nan_mode="constants")
        except (ValueError, RecursionError) as error:
            raise OptionError(self._refusal(source, str(error), "")) from error
        return self.parse(text, source)

    def read(self, path: str | os.PathLike[str]) -> _Document:
        """Return what a file holds.

        Raises:
            OptionError: It cannot be read, or holds something else.
        """
        return self.parse(read_bytes(path, self._mend), f"`{path}`")

    def read_lines(self, path: str | os.PathLike[str]) -> Iterator[_Document]:
        """Yield what each line of a file holds; lines of white space are passed over.

        Raises:
            OptionError: The file cannot be read, or a line holds something else.
        """
        for number, line in enumerate(read_bytes(path, self._mend).split(b"\n"), 1):
            if line.strip():
                yield self.parse(line, f"Line {number} of `{path}`")

    def _refusal(self, source: str, reason: str, place: str) -> str:
        return f"{source} is not {self._name}{place}: {reason.rstrip('.')}. {self._mend}"


def read_bytes(path: str | os.PathLike[str], mend: str) -> bytes:
    """Return what is in a file.

    Raises:
        OptionError: It cannot be read or is larger than `MOST_BYTES`; the error ends with `mend`.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        reason = getattr(error, "strerror", None) or str(error)
        msg = f"`{path}` cannot be read ({reason}). {mend}"
        raise OptionError(msg) from error
    if len(content) > MOST_BYTES:
        msg = f"`{path}` cannot be read: it has more than {MOST_BYTES // 2**20} MiB. {mend}"
        raise OptionError(msg)
    return content


def read_text(path: str | os.PathLike[str], mend: str) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        OptionError: It cannot be read, is too large, or is no such text; the error ends with `mend`.
    """
    try:
        return read_bytes(path, mend).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"`{path}` cannot be read: it is not text in UTF-8 ({error.reason} at byte {error.start}). {mend}"
        raise OptionError(msg) from error


def _first_fault(error: ValidationError) -> tuple[str, str]:
    """Return the first of pydantic's complaints, and where it is, in words."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return first["msg"], f" (at `{place}`)" if place else ""

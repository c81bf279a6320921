"""Reads the tables of the generator: TOML files in the folder `content`, checked against frozen dataclasses.

Lists and tables keep the order of the file, because what is drawn depends on it.
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

_FOLDER = Path(__file__).parent / "content"

Table = TypeVar("Table")


class TableError(ValueError):
    """A file of the generator's content is not what its dataclass describes."""


def load(file_name: str, table_type: type[Table], folder: Path = _FOLDER) -> Table:
    """Return the content of a TOML file as an instance of a dataclass; a file is read once per process.

    Args:
        file_name: Name of the file.
        table_type: A frozen dataclass whose fields are the keys of the file. Fields may be texts, numbers, booleans,
            literals, tuples of any length, dicts by name, and dataclasses; those with a default may be left out.
        folder: Where the file is.

    Raises:
        TableError: The file is not TOML, or a key is missing, unknown or of another type.
    """
    table: Table = _table(_read(folder / file_name), table_type, file_name, "")
    return table


@cache
def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        msg = f"`{file.name}` is not TOML: {error}"
        raise TableError(msg) from error


def _table(value: Any, table_type: Any, file_name: str, key: str) -> Any:
    """Return a table of the file as the dataclass `table_type`; `key` is where it is, empty for the whole file."""
    _require(isinstance(value, dict), file_name, key, "a table", value)
    fields = {field.name: field for field in dataclasses.fields(table_type)}
    where = f"`{file_name}`" + (f", key `{key}`" if key else "")
    for name in value:
        if name not in fields:
            allowed = ", ".join(f"`{field}`" for field in fields)
            msg = f"{where}: unknown key `{name}`. Allowed are {allowed}."
            raise TableError(msg)
    for name, field in fields.items():
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if is_required and name not in value:
            msg = f"{where}: the key `{name}` is missing."
            raise TableError(msg)
    hints = typing.get_type_hints(table_type)
    return table_type(
        **{name: _value(item, hints[name], file_name, _joined(key, name)) for name, item in value.items()}
    )


def _value(value: Any, expected: Any, file_name: str, key: str) -> Any:
    """Return a value of the file as the type `expected`."""
    if expected is Any:
        return value
    if dataclasses.is_dataclass(expected):
        return _table(value, expected, file_name, key)
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is Literal:
        _require(value in arguments, file_name, key, " or ".join(f'"{name}"' for name in arguments), value)
        return value
    if origin is tuple:
        _require(isinstance(value, list), file_name, key, "a list", value)
        return tuple(_value(item, arguments[0], file_name, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        _require(isinstance(value, dict), file_name, key, "a table", value)
        return {
            _value(name, arguments[0], file_name, key): _value(item, arguments[1], file_name, _joined(key, name))
            for name, item in value.items()
        }
    is_right = isinstance(value, (int, float) if expected is float else expected)
    _require(is_right and (expected is bool or not isinstance(value, bool)), file_name, key, expected.__name__, value)
    return value


def _joined(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _require(condition: object, file_name: str, key: str, expected: str, value: Any) -> None:
    if not condition:
        msg = f"`{file_name}`, key `{key}`: `{value!r}` is not {expected}."
        raise TableError(msg)

"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from langnorm.errors import OptionError

_SECONDS_UNTIL_LEFT_BEHIND = 3600.0  # nobody writes to a file for longer


def check_folder(path: Path) -> None:
    """Raise `OptionError` unless a file can be written at `path`: before the work whose result it is to hold."""
    if path.is_dir():
        msg = f"`{path}` is a folder. Give the path of a file in it."
        raise OptionError(msg)
    folder = _target(path).parent
    if not (os.access(path, os.W_OK) if is_stream(path) else folder.is_dir() and os.access(folder, os.W_OK)):
        msg = f"`{path}` cannot be written. Give a path in a folder that exists and is yours."
        raise OptionError(msg)


def own_name(path: Path) -> str:
    """Return the last part of a path; of one that ends with dots, such as `.`, that of the folder which it names."""
    return path.name if path.name not in ("", "..") else path.resolve().name


def is_stream(path: Path) -> bool:
    """Return whether what is at `path` is no file that could be replaced: a pipe, a terminal, a device."""
    return path.exists() and not path.is_file() and not path.is_dir()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is never seen half-written; text in UTF-8.

    Of a link, the file that it names is written; a pipe or a device is written to. What is replaced leaves its
    permissions to the new file.

    Raises:
        OptionError: The folder does not exist or cannot be written.
    """
    coded = content.encode() if isinstance(content, str) else content
    try:
        if is_stream(path):
            with path.open("wb") as stream:
                stream.write(coded)
        else:
            _replace(_target(path), coded)
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        reason = getattr(error, "strerror", None) or str(error)
        msg = f"`{path}` cannot be written ({reason}). Give a path in a folder that exists and is yours."
        raise OptionError(msg) from error


def _replace(path: Path, content: bytes) -> None:
    _remove_left_behind(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _remove_left_behind(path: Path) -> None:
    """Remove what processes that were killed had written of this file."""
    start, end = f".{path.name}.", ".partial"
    for entry in os.scandir(path.parent):
        is_partial = entry.name.startswith(start) and entry.name[len(start) : -len(end)].isdecimal()
        if is_partial and entry.name.endswith(end) and entry.stat().st_mtime < time.time() - _SECONDS_UNTIL_LEFT_BEHIND:
            Path(entry.path).unlink(missing_ok=True)


def _target(path: Path) -> Path:
    """Return what a link names in the end, also where nothing is there yet; another path as it is, from the root."""
    return Path(os.path.realpath(path))

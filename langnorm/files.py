"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from langnorm.errors import OptionError


def check_folder(path: Path) -> None:
    """Raise `OptionError` unless a file can be written at `path`: before the work whose result it is to hold."""
    if path.is_dir():
        msg = f"`{path}` is a folder. Give the path of a file in it."
        raise OptionError(msg)
    if not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        msg = f"`{path}` cannot be written. Give a path in a folder that exists and is yours."
        raise OptionError(msg)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is never seen half-written.

    Raises:
        OptionError: The folder does not exist or cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        msg = f"`{path}` cannot be written ({error.strerror}). Give a path in a folder that exists and is yours."
        raise OptionError(msg) from error

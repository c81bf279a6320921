"""The answers of an evaluation on disk: each as soon as it is there, and whole or not at all.

A run is one file to which only ever is appended: for each group of questions that were answered together a gzip member
with a line of JSON for each question. What a process that was killed has left half-written at the end is cut off.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from langnorm.errors import OptionError
from langnorm.files import write_atomically
from langnorm.work import differences

_WORK = "work.json"
_SUFFIX = ".jsonl.gz"
_PART = 65_536  # bytes that are read at once
_BEGINNING = b'{"item": '  # of every line


class AnswerStore:
    """A folder with the answers of an evaluation, for one process at a time.

    Args:
        folder: Is made if it is not there.
        work: What decides the answers, in words, by name.
        restart: Whether answers that are there are thrown away.

    Raises:
        OptionError: The folder cannot be written, another process has it, or it has answers of other work.
    """

    def __init__(self, folder: Path, work: Mapping[str, str], *, restart: bool = False) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout as error:
            msg = f"Another process is evaluating in `{folder}`. Wait for it, or give another folder."
            raise OptionError(msg) from error
        except OSError as error:
            msg = f"`{folder}` cannot be written ({error.strerror}). Give a folder that is yours."
            raise OptionError(msg) from error
        try:
            self._begin(work, restart=restart)
        except BaseException:
            self._lock.release()
            raise

    def _begin(self, work: Mapping[str, str], *, restart: bool) -> None:
        path = self.folder / _WORK
        if restart:
            for file in [*filter(_has_answers, self.folder.glob(f"*{_SUFFIX}")), path]:
                file.unlink(missing_ok=True)
        if path.exists():
            try:
                there = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                msg = f"`{path}` cannot be read ({error}). Begin anew with `restart=True` (`--restart`)."
                raise OptionError(msg) from error
            if differing := differences(there if isinstance(there, dict) else {}, work):
                msg = (
                    f"The answers in `{self.folder}` belong to another evaluation: {'; '.join(differing)}. Go on with "
                    "its settings, begin anew with `restart=True` (`--restart` on the command line), or give another "
                    "folder."
                )
                raise OptionError(msg)
        else:
            write_atomically(path, json.dumps(dict(work), indent=1) + "\n")

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def read(self, run: str, keys: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Yield what is there of a run, with the number of the question; what is half-written is cut off for good.

        Args:
            run: Its name.
            keys: What decides the answer to each question beside the work of the folder.

        Raises:
            OptionError: There is an answer to another question, or with other options.
        """
        path = self._path(run)
        if not path.exists():
            return
        with path.open("r+b") as file:
            while text := _next_member(file):
                for row in map(json.loads, text.splitlines()):
                    if row["item"] < len(keys) and row["key"] != keys[row["item"]]:
                        msg = (
                            f"`{path}` has answers to other questions, or with other options: that of number "
                            f"{row['item']}. Begin anew with `restart=True` (`--restart`), or give another folder."
                        )
                        raise OptionError(msg)
                    yield row["item"], row["answers"]
            file.truncate()

    def append(self, run: str, keys: Sequence[str], answers: Mapping[int, Any]) -> None:
        """Add the answers to some questions of a run, by their numbers: plain JSON types."""
        rows = [{"item": item, "key": keys[item], "answers": of_item} for item, of_item in answers.items()]
        lines = [json.dumps(row) + "\n" for row in rows]
        member = gzip.compress("".join(lines).encode(), compresslevel=6, mtime=0)
        with self._path(run).open("ab") as file:
            file.write(member)
            file.flush()
            os.fsync(file.fileno())

    def _path(self, run: str) -> Path:
        return self.folder / f"{run}{_SUFFIX}"


def _has_answers(path: Path) -> bool:
    """Return whether a file begins like those of a store; any other in the same folder is somebody's own."""
    try:
        with path.open("rb") as file:
            reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            return reader.decompress(file.read(_PART), len(_BEGINNING)) == _BEGINNING
    except (OSError, zlib.error):
        return False


def _next_member(file: BinaryIO) -> bytes:
    """Return what the next gzip member of a file holds and go behind it; nothing, and stay, if it is not whole."""
    start, reader, parts = file.tell(), zlib.decompressobj(wbits=zlib.MAX_WBITS | 16), []
    try:
        while not reader.eof and (part := file.read(_PART)):
            parts.append(reader.decompress(part))
    except zlib.error:
        parts.clear()
    is_whole = reader.eof and bool(parts)
    file.seek(file.tell() - len(reader.unused_data) if is_whole else start)
    return b"".join(parts) if is_whole else b""

"""Puts what was measured into documents, so that no figure is typed by hand."""

from __future__ import annotations

from pathlib import Path


def put(file: Path, mark: str, text: str) -> None:
    """Put a text between the marks of a file.

    Raises:
        ValueError: The file has no such marks.
    """
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    whole = file.read_text()
    if begin not in whole or end not in whole:
        msg = f"{file} has no `{begin}` and `{end}`."
        raise ValueError(msg)
    head, _, rest = whole.partition(begin)
    file.write_text(f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def between(file: Path, mark: str) -> str:
    """Return what stands between the marks of a file."""
    return file.read_text().partition(f"<!-- {mark}: begin -->\n")[2].partition(f"\n<!-- {mark}: end -->")[0]

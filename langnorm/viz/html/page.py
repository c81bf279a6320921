"""Fills the page: the answers travel as JSON, which no text of a model can leave, and a policy forbids all loading."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

_FRAME_HEIGHT = 620  # of a page in a notebook, in CSS pixels


@dataclass(frozen=True, slots=True)
class Page:
    """A page of one or more answers beside each other; a notebook shows it.

    Attributes:
        title: Above it.
        answers: As `build_view` returns them.
        note: A sentence below the title.
    """

    title: str
    answers: Sequence[Mapping[str, Any]]
    note: str = ""

    def to_html(self) -> str:
        """Return the page as one HTML file: it needs no other file, no network, and works in light and dark."""
        data = {"title": self.title, "note": self.note, "answers": list(self.answers)}
        style, script = _asset("page.css"), _asset("page.js")
        policy = f"default-src 'none'; base-uri 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
        parts = {
            "policy": policy,
            "title": self._escaped_title(),
            "style": style,
            "data": _json_in_script(data),
            "script": script,
        }
        # Split, not replaced one after the other: what is filled in is never searched.
        pieces = _asset("page.html").split("@@")
        return "".join(piece if i % 2 == 0 else parts[piece] for i, piece in enumerate(pieces))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, which is there whole or not at all.

        Raises:
            OptionError: It cannot be written.
        """
        from langnorm.files import write_atomically

        write_atomically(Path(path), self.to_html())

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, where it can reach nothing of the notebook around it."""
        page = html.escape(self.to_html(), quote=True)
        return (
            f'<iframe title="{self._escaped_title()}" sandbox="allow-scripts" srcdoc="{page}" '
            f'style="width:100%;height:{_FRAME_HEIGHT}px;border:0"></iframe>'
        )

    def _escaped_title(self) -> str:
        return html.escape(self.title.encode(errors="replace").decode())


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a content security policy calls an inline style or script with this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json_in_script(data: Any) -> str:
    """Return JSON for the inside of a script element: nothing in it can end or open an element."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

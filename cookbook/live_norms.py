"""Draws the norms of an answer while it is written: `python cookbook/live_norms.py "Why is the sky blue?"`.

With `norms="tokens"` each chunk of a stream has the norms of its tokens under `additional_kwargs["langnorm"]`:
`token_norms`, `token_percentiles` where there is something to compare with, and `token_ids`. `LiveAnswer` draws them on
a terminal; a bar for each chunk by hand is no more than what `bars` does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from statistics import fmean

from langchain_core.messages import AIMessageChunk
from rich.console import Console

from langnorm import ChatLangNorm
from langnorm.viz import LiveAnswer

QUESTION = "Mia has 12 boxes with 14 pens each. She gives 39 pens to Tom. How many pens does Mia have?"


def bars(chunks: Iterable[AIMessageChunk]) -> Iterator[str]:
    """Yield a line for each chunk: its text, and how large its norms are, from 0 to 1."""
    for chunk in chunks:
        rows = chunk.additional_kwargs.get("langnorm", {}).get("token_percentiles") or []
        text = chunk.additional_kwargs.get("reasoning_content") or chunk.content
        if rows and text:
            heat = fmean(value for row in rows for value in row)
            yield f"{text!r:20} {heat:.2f} {'#' * round(heat * 40)}"


def main(question: str = QUESTION) -> None:
    """Answer a question twice: as `LiveAnswer` draws it, and with a bar a line."""
    chat = ChatLangNorm(temperature=0, norms="tokens")
    with LiveAnswer(Console()) as live:
        live.follow(chat.stream(question))
    for line in bars(chat.stream(question)):
        print(line)  # noqa: T201 (a script)


if __name__ == "__main__":
    main(*sys.argv[1:2])

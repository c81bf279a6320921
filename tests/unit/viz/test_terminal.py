"""What the terminal says below an answer: of its selection, and of interventions that did nothing."""

from __future__ import annotations

import io
from typing import Any

from langchain_core.messages import AIMessageChunk
from rich.console import Console

from langnorm import ChatLangNorm
from langnorm.selection import rank
from langnorm.testing import ScriptedEngine, message_with_norms
from langnorm.viz import LiveAnswer
from langnorm.viz.terminal import print_stream, print_summary


def summary(message: Any, **of_ours: Any) -> str:
    """Return what is printed below a message, in one line."""
    metadata = message.response_metadata
    metadata = metadata | {"model_name": "tiny", "engine": "transformers", "langnorm": metadata["langnorm"] | of_ours}
    console = Console(file=io.StringIO(), width=200)
    print_summary(console, AIMessageChunk(content=message.content, response_metadata=metadata), 1.0)
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def test_a_selection_is_summed_up() -> None:
    """Which one was chosen, how many agree, and what to be wary of."""
    messages = [message_with_norms(text) for text in ("It is 3.", "The answer is 4.", "**4**")]
    messages.append(message_with_norms("It is", finish_reason="length"))
    printed = summary(rank(messages, score=None, vote="majority")[0])
    assert "Candidate 2 of 4; 67% of the votes are for its answer: 4" in printed
    assert "1 of 4 were cut off at max_tokens." in printed


def test_a_selection_without_votes_is_summed_up() -> None:
    """Nobody agrees where nobody votes; control characters of an answer do not reach the terminal."""
    printed = summary(rank([message_with_norms("\x1b[31m", finish_reason="length")], score=None)[0])
    assert "Candidate 1 of 1" in printed
    assert "\x1b" not in printed
    assert "votes are for" not in printed


def test_interventions_that_did_nothing_say_so() -> None:
    """Those that did something do not."""
    message = message_with_norms("It is 3.")
    printed = summary(message, recursion={"warning": "`recursion` did nothing."}, steering={"warning": None})
    assert "`recursion` did nothing." in printed
    assert "None" not in printed


def test_a_file_has_the_text_that_was_written() -> None:
    """Its tabs and its long lines, however it came in pieces; control characters are left out."""
    chunks = [AIMessageChunk(text) for text in ("all: [b]x\n", "\tcc", " -o\t", "x" * 300, "\x1b[1m\r\n")]

    def follow(console: Console) -> None:
        with LiveAnswer(console) as live:
            live.follow(chunks)

    for show in (follow, lambda console: print_stream(console, chunks)):
        console = Console(file=io.StringIO(), width=40)
        show(console)
        assert console.file.getvalue() == f"all: [b]x\n\tcc -o\t{'x' * 300}\ufffd[1m\n\n"  # type: ignore[attr-defined]


def test_answers_in_blocks_are_printed_as_text() -> None:
    """As LangChain has them with `output_version="v1"`, which an environment variable sets for all chat models."""
    printed = []
    for version in ("v0", "v1"):
        chat = ChatLangNorm(engine=ScriptedEngine(["<think>\nHm.\n</think>\n\nSo."] * 2), output_version=version)
        console = Console(file=io.StringIO(), width=40)
        with LiveAnswer(console) as live:
            live.follow(chat.stream("Why?"))
        print_stream(console, chat.stream("Why?"))
        printed.append(console.file.getvalue())  # type: ignore[attr-defined]
    assert printed == ["Hm.\n\nSo.\n" * 2] * 2

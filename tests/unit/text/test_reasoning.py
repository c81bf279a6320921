"""Reasoning is told from the answer while the text arrives, however it is cut into pieces."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langnorm.text.marks import THINKING_TAGS
from langnorm.text.readers import TagReader, join_events, parse_answer
from langnorm.text.reasoning import ReasoningSplitter, Segment

fragments = st.sampled_from(
    [
        "<think>",
        "</think>",
        "[THINK]",
        "[/THINK]",
        "<seed:think>",
        "<",
        "</",
        "think>",
        "[",
        "[/TH",
        "a",
        "b c",
        " ",
        "\n",
        "é",
    ]
)
marked_texts = st.lists(fragments, max_size=12).map("".join)


def plain_split(text: str, *, is_thinking: bool) -> tuple[str, str]:
    """Returns reasoning and answer of a whole text: the definition, without streaming."""
    if not is_thinking:
        openings = "|".join(re.escape(opening) for opening, _ in THINKING_TAGS)
        opened = re.match(rf"\s*({openings})", text)
        if opened is None:
            return "", text
        text = text[opened.end() :]
        closings = re.escape(dict(THINKING_TAGS)[opened[1]])
    else:
        closings = "|".join(re.escape(closing) for _, closing in THINKING_TAGS)
    reasoning, *answer = re.split(closings, text, maxsplit=1)
    return reasoning.strip(), "".join(answer).lstrip()


def join(segments: list[Segment], part: str) -> str:
    """Returns the text of one part."""
    return "".join(segment.text for segment in segments if segment.part == part)


def split_reasoning(pieces: list[str], *, is_thinking: bool = False) -> list[Segment]:
    """Returns the segments of a whole answer without tools."""
    return parse_answer(TagReader(is_thinking=is_thinking), pieces).segments


def feed(splitter: ReasoningSplitter, token: int, piece: str) -> list:
    """Returns what a splitter says of the letters of a piece, joined."""
    return list(join_events(segment for letter in piece for segment in splitter.feed_letter(token, letter)))


def cut(text: str, cuts: list[int]) -> list[str]:
    """Returns the text in pieces, some of them empty."""
    places = sorted({min(place, len(text)) for place in cuts} | {0, len(text)})
    return ["", *(text[a:b] for a, b in pairwise(places))]


@given(text=marked_texts, is_thinking=st.booleans(), cuts=st.lists(st.integers(0, 60), max_size=20))
@example(text=" \n<think>\n a \n</think>\n\n b \n", is_thinking=False, cuts=[3, 14])
@example(text="a </think> b <think> c </think>", is_thinking=True, cuts=[4])
def test_any_chunking_gives_the_same_parts(text, is_thinking, cuts) -> None:
    """However the text is cut into pieces, reasoning and answer are those of the whole text."""
    expected = plain_split(text, is_thinking=is_thinking)
    for pieces in (cut(text, cuts), [text], list(text)):
        segments = split_reasoning(pieces, is_thinking=is_thinking)

        assert (join(segments, "reasoning"), join(segments, "answer")) == expected
        assert all(segment.text and segment.text in pieces[segment.token] for segment in segments)
        tokens = [segment.token for segment in segments]
        assert tokens == sorted(tokens)


@given(text=marked_texts, is_thinking=st.booleans(), cuts=st.lists(st.integers(0, 60), max_size=20))
def test_what_was_streamed_is_what_is_returned(text, is_thinking, cuts) -> None:
    """Segments come in order while the text arrives, and `finish` adds what was held back."""
    pieces = cut(text, cuts)
    splitter = ReasoningSplitter(is_thinking=is_thinking)
    streamed = [segment for token, piece in enumerate(pieces) for segment in feed(splitter, token, piece)]
    streamed += join_events(splitter.finish_letters())

    assert streamed == split_reasoning(pieces, is_thinking=is_thinking)
    assert list(splitter.finish_letters()) == []


@pytest.mark.parametrize(
    ("text", "is_thinking", "reasoning", "answer"),
    [
        ("<think>\nwhy\n</think>\n\nbecause", False, "why", "because"),
        ("why\n</think>\n\nbecause", True, "why", "because"),
        ("<think>\nI never finish", False, "I never finish", ""),
        ("I never finish \n", True, "I never finish", ""),
        ("<think>\n\n</think>\n\nat once", False, "", "at once"),
        ("no thought at all\n", False, "", "no thought at all\n"),
        ("  indented", False, "", "  indented"),
        ("", False, "", ""),
        ("", True, "", ""),
        ("[THINK]a[/THINK]b", False, "a", "b"),
        ("<seed:think>a</seed:think>b", False, "a", "b"),
        ("<thinking>a</thinking>b", False, "a", "b"),
        ("<thought>a</thought>b", False, "a", "b"),
        ("◁think▷a◁/think▷b", False, "a", "b"),
        ("<think>a </thought> b</think>c", False, "a </thought> b", "c"),
        ("it is <think>not</think>", False, "", "it is <think>not</think>"),
        ("<think>a</think>b <think>c</think>", False, "a", "b <think>c</think>"),
        ("<think>a < b, a </b>", False, "a < b, a </b>", ""),
        ("<think>a</thi", False, "a</thi", ""),
        ("<thin", False, "", "<thin"),
    ],
)
def test_parts_of_an_answer(text, is_thinking, reasoning, answer) -> None:
    """Reasoning comes first and once; marks elsewhere, and unfinished ones, are text."""
    for pieces in ([text], list(text)):
        segments = split_reasoning(pieces, is_thinking=is_thinking)

        assert (join(segments, "reasoning"), join(segments, "answer")) == (reasoning, answer)


def test_text_is_shown_as_soon_as_it_is_decided() -> None:
    """Only white space and beginnings of marks wait for what follows."""
    splitter = ReasoningSplitter()
    shown = [
        [(segment.part, segment.text) for segment in feed(splitter, token, piece)]
        for token, piece in enumerate(
            ["<think>", "\n", "So", " it", " ", "</", "b", "</thi", "nk>", "\n\n", "Yes", " <"]
        )
    ]

    assert shown == [
        [],
        [],
        [("reasoning", "So")],
        [("reasoning", " it")],
        [],
        [],
        [("reasoning", " "), ("reasoning", "</"), ("reasoning", "b")],
        [],
        [],
        [],
        [("answer", "Yes")],
        [("answer", " <")],
    ]

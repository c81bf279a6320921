"""Steps cover the text without overlap, in characters and in tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.steps import split_steps, split_text
from langnorm.text import split_reasoning


def texts(text: str) -> list[str]:
    """Return the texts of the steps."""
    return [text[start:end] for start, end in split_text(text)]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        ("  \n ", []),
        ("one", ["one"]),
        ("1 + 2 = 3\n3 + 4 = 7", ["1 + 2 = 3", "3 + 4 = 7"]),
        ("It is 3.5 m. Then 4.", ["It is 3.5 m.", "Then 4."]),
        ("Really? Yes! Good…  So", ["Really?", "Yes!", "Good…", "So"]),
        ("今日は晴れ。明日は雨。", ["今日は晴れ。", "明日は雨。"]),
        ("a\n\n  b \n", ["a", "b"]),
    ],
)
def test_lines_and_sentences(text: str, steps: list[str]) -> None:
    """A step ends with its line or sentence; a point inside a number ends nothing."""
    assert texts(text) == steps


@given(st.text(alphabet="ab .!?。\n3"))
def test_no_visible_character_is_lost(text: str) -> None:
    """All that is not white space is in exactly one step."""
    assert "".join("".join(texts(text)).split()) == "".join(text.split())


@given(st.lists(st.text(alphabet="ab .\n", max_size=4), max_size=12))
def test_every_token_belongs_to_at_most_one_step(pieces: list[str]) -> None:
    """Token ranges are in order, not empty, and do not overlap, however the text is cut into tokens."""
    spans = split_steps(split_reasoning(["<think>", *pieces, "</think>", *pieces]))
    for part in ("reasoning", "answer"):
        of_part = [span for span in spans if span.part == part]
        edges = [edge for span in of_part for edge in (span.start, span.end)]
        assert edges == sorted(edges)
        assert all(span.start < span.end for span in of_part)


def test_reasoning_is_told_from_the_answer() -> None:
    """Steps name their part, and count characters within it."""
    spans = split_steps(split_reasoning(["<think>", "\n", "a.", " b.", "\n", "</think>", "\n\n", "c."]))
    assert [(s.part, s.start, s.end, s.text_start, s.text_end) for s in spans] == [
        ("reasoning", 2, 3, 0, 2),
        ("reasoning", 3, 4, 3, 5),
        ("answer", 7, 8, 0, 2),
    ]


def test_a_token_with_two_steps_belongs_to_the_first() -> None:
    """A step whose only token is taken joins the step before."""
    (span,) = split_steps(split_reasoning(["a. b."]))
    assert (span.start, span.end, span.text_start, span.text_end) == (0, 1, 0, 5)

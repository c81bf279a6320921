"""Marks are recognised whole and in part, and text that waits keeps the token of each character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.text.marks import PieceBuffer, is_markup, partial_mark_length, rstrip_pieces

words = st.text(alphabet="ab<>", max_size=6)
numbered_pieces = st.lists(st.text(alphabet="ab \n", min_size=1, max_size=3), max_size=6).map(
    lambda texts: list(enumerate(texts))
)


def characters(pieces: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Returns each character with its token."""
    return [(token, character) for token, text in pieces for character in text]


@given(text=words, mark=words)
def test_partial_mark_length_is_the_longest_that_could_be_completed(text: str, mark: str) -> None:
    """It is the longest end of a text that a mark begins with; a whole mark does not count."""
    lengths = [n for n in range(len(mark)) if text.endswith(mark[:n])]
    assert partial_mark_length(text, mark) == max(lengths, default=0)


@pytest.mark.parametrize(
    ("token", "is_mark"),
    [
        ("<think>", True),
        ("[/THINK]", True),
        ("<seed:think>", True),
        ("<TOOL_CALL>", True),
        ("<|python_tag|>", True),
        ("[ARGS]", True),
        ("think", False),
        ("<|im_end|>", False),
        ("", False),
    ],
)
def test_marks_of_reasoning_and_tools_are_recognised(token: str, is_mark: bool) -> None:
    """Tags of reasoning are so to the letter, marks of tools by a part of them in either case."""
    assert is_markup(token) is is_mark


@given(pieces=numbered_pieces, sizes=st.lists(st.integers(0, 4), max_size=8))
def test_a_buffer_gives_characters_back_in_order_with_their_tokens(
    pieces: list[tuple[int, str]], sizes: list[int]
) -> None:
    """However much is taken at a time, nothing is lost and no character changes its token."""
    buffer, taken = PieceBuffer(), []
    for token, text in pieces:
        buffer.add(token, text)
    for size in sizes:
        length = min(size, len(buffer.text))
        front = buffer.take(length)
        assert len(characters(front)) == length
        taken += front
    assert characters(taken + buffer.take_all()) == characters(pieces)
    assert buffer.text == ""


@given(pieces=numbered_pieces)
def test_white_space_at_the_end_is_removed_across_pieces(pieces: list[tuple[int, str]]) -> None:
    """Pieces of nothing but white space at the end disappear, white space before other text stays."""
    stripped = rstrip_pieces(list(pieces))
    text = "".join(piece for _, piece in pieces)
    assert characters(stripped) == characters(pieces)[: len(text.rstrip())]
    assert all(piece for _, piece in stripped)

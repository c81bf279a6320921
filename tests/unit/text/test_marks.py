"""Marks are recognised whole and in part, and text that waits keeps the token of each character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.text.marks import FoundMark, MarkFinder, is_markup, is_reasoning_open, partial_mark_length

words = st.text(alphabet="ab<>", max_size=6)


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


@given(
    text=st.text(alphabet="ab<>", max_size=20),
    marks=st.sets(st.text(alphabet="ab<>", min_size=1, max_size=4), max_size=3),
)
def test_marks_are_found_where_they_first_occur(text: str, marks: set[str]) -> None:
    """Letters come back in order, and a mark as soon as it is whole."""
    marks = {mark for mark in marks if not any(mark != other and mark.startswith(other) for other in marks)}
    finder, shown, rest = MarkFinder(sorted(marks)), [], text
    for token, letter in enumerate(text):
        shown += finder.feed(token, letter)
    shown += finder.take_held()
    for item in shown:
        expected = next((mark for mark in marks if rest.startswith(mark)), None)
        found = item.text if isinstance(item, FoundMark) else item[1]
        assert found == (expected or rest[:1])
        rest = rest[len(found) :]
    assert rest == ""
    letters = [letter for item in shown for letter in (item.letters if isinstance(item, FoundMark) else [item])]
    assert letters == list(enumerate(text))


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("<think>\n", True),
        ("<think>\nOkay, ", True),
        ("<think>\n\n</think>\n\n", False),
        ("<think>a</think><think>", True),
        ("</think>", False),
        ("[THINK]a[/THINK] and </think>", False),
        ("", False),
    ],
)
def test_reasoning_is_open_after_its_last_opening_mark(text: str, is_open: bool) -> None:
    """Unless a closing one comes after it; words may follow."""
    assert is_reasoning_open(text) is is_open

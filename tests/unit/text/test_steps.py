"""Steps cover the text without overlap, in characters and in tokens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.errors import OptionError
from langnorm.text.readers import TagReader, parse_answer
from langnorm.text.reasoning import Segment
from langnorm.text.steps import SPLITTERS, get_splitter, split_sentences, split_steps
from langnorm.text.tool_calls import HERMES, LLAMA, MISTRAL, ToolForm
from tests.support.odd_values import ODD_VALUES


def split_reasoning(pieces: list[str], form: ToolForm | None = None) -> list[Segment]:
    """Return the segments of a whole answer."""
    return parse_answer(TagReader(form=form), pieces).segments


def texts(text: str, splitter: str = "sentence") -> list[str]:
    """Return the texts of the steps."""
    return [text[start:end] for start, end in SPLITTERS[splitter](text)]


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


def test_lines_and_paragraphs() -> None:
    """Coarser splitters leave sentences, and lines, together."""
    text = "One. Two.\nThree.\n \n Four."
    assert texts(text, "line") == ["One. Two.", "Three.", "Four."]
    assert texts(text, "paragraph") == ["One. Two.\nThree.", "Four."]


@given(st.text(alphabet="ab .!?。\n3"), st.sampled_from(list(SPLITTERS)))
def test_no_visible_character_is_lost(text: str, splitter: str) -> None:
    """All that is not white space is in exactly one step."""
    assert "".join("".join(texts(text, splitter)).split()) == "".join(text.split())


@given(st.lists(st.text(alphabet="ab .\n", max_size=4), max_size=12))
def test_every_token_belongs_to_at_most_one_step(pieces: list[str]) -> None:
    """Token ranges are in order, not empty, and do not overlap, however the text is cut into tokens."""
    spans = split_steps(split_reasoning(["<think>", *pieces, "</think>", *pieces]))
    for part in ("reasoning", "answer"):
        of_part = [span for span in spans if span.kind == part]
        edges = [edge for span in of_part for edge in (span.start, span.end)]
        assert edges == sorted(edges)
        assert all(span.start < span.end for span in of_part)


def test_reasoning_is_told_from_the_answer() -> None:
    """Steps name their part, and count characters within it."""
    spans = split_steps(split_reasoning(["<think>", "\n", "It.", " So.", "\n", "</think>", "\n\n", "C."]))
    assert [(s.kind, s.start, s.end, s.text_start, s.text_end) for s in spans] == [
        ("reasoning", 2, 3, 0, 3),
        ("reasoning", 3, 4, 4, 7),
        ("answer", 7, 8, 0, 2),
    ]


@pytest.mark.parametrize(
    ("form", "answer", "steps"),
    [
        (
            HERMES,
            'I look. <tool_call>\n{"name": "a. b"}\n</tool_call>\n<tool_call>{}</tool_call> Done.',
            [("answer", 0, 7), ("tool_call", 8, 49), ("tool_call", 50, 75), ("answer", 76, 81)],
        ),
        (HERMES, '<tool_call>{"name": "a', [("tool_call", 0, 22)]),
        (MISTRAL, "[TOOL_CALLS]f{}[TOOL_CALLS]g{}", [("tool_call", 0, 15), ("tool_call", 15, 30)]),
        (LLAMA, "<|python_tag|>{}\n", [("tool_call", 0, 16)]),
        (None, "<tool_call>{}</tool_call>", [("answer", 0, 25)]),
    ],
)
def test_a_tool_call_is_one_step(form: ToolForm | None, answer: str, steps: list[tuple[str, int, int]]) -> None:
    """Calls keep together whatever is in them, also one that was cut off; without tools there are none."""
    pieces = ["<think>", "x", "</think>", *answer]
    spans = split_steps(split_reasoning(pieces, form))[1:]
    ends = [start for _, start, _ in steps[1:]] + [steps[-1][2]]  # white space between two belongs to the first
    found = [(span.kind, span.start - 3, span.end - 3) for span in spans]
    assert found == [(kind, start, end) for (kind, start, _), end in zip(steps, ends, strict=True)]


@pytest.mark.parametrize("splitter", ["sentence", "paragraph"])
def test_no_step_goes_on_behind_a_call(splitter: str) -> None:
    """The call is a step where the paragraph or the code around it goes on: what goes on is another step."""
    pieces = ["Look: `a", " ", "<tool_call>", "{}", "</tool_call>", "\n", "b`", " So"]
    found = split_steps(split_reasoning(pieces, HERMES), SPLITTERS[splitter])
    assert [(s.kind, s.start, s.end, s.text_start, s.text_end) for s in found] == [
        ("answer", 0, 2, 0, 8),
        ("tool_call", 2, 6, 0, 25),
        ("answer", 6, 8, 9, 14),
    ]


def test_reasoning_may_come_again() -> None:
    """As in the channels of gpt-oss: steps are in the order of their tokens, and share none."""
    segments = [Segment("reasoning", "I look. ", 0), Segment("answer", "Wait", 2), Segment("answer", ".", 3)]
    segments += [Segment("reasoning", "So it is.", 4), Segment("answer", "\nIt is.", 6)]
    found = [(s.kind, s.start, s.end, s.text_start, s.text_end) for s in split_steps(segments)]
    assert found == [
        ("reasoning", 0, 1, 0, 7),
        ("answer", 2, 4, 0, 5),
        ("reasoning", 4, 5, 8, 17),
        ("answer", 6, 7, 6, 12),
    ]


def test_a_call_in_the_reasoning_is_reasoning() -> None:
    """Only what is outside the reasoning is a call."""
    (span,) = split_steps(split_reasoning(["<think>", "<tool_call>{}</tool_call>"], HERMES))
    assert span.kind == "reasoning"


def test_a_splitter_of_ones_own() -> None:
    """A function of the text decides what a step is."""
    spans = split_steps(split_reasoning(list("a;bc")), get_splitter(lambda text: [(0, 2), (2, len(text))]))
    assert [(s.start, s.end) for s in spans] == [(0, 2), (2, 4)]


@pytest.mark.parametrize("spans", [[(2, 1)], [(0, 2), (1, 3)], [(0, 9)], [(-1, 2)], [(1, 1)]])
def test_a_splitter_that_is_wrong_is_refused(spans: list[tuple[int, int]]) -> None:
    """The error shows what it returned."""
    with pytest.raises(OptionError, match=r"step splitter returned .* text of 4 characters"):
        split_steps(split_reasoning(list("abcd")), lambda _: spans)


@pytest.mark.parametrize("result", [None, 3, "ab", [3], [(0, 1, 2)], [(0.0, 1.5)], [("0", "1")], [None]])
def test_a_splitter_that_returns_no_offsets_is_refused(result: Any) -> None:
    """Whatever it returned in place of pairs of integers is shown in the error."""
    with pytest.raises(OptionError, match=r"step splitter returned .* text of 4 characters"):
        split_steps(split_reasoning(list("abcd")), lambda _: result)


def test_an_error_inside_a_splitter_is_the_users_own() -> None:
    """What a function of the user raises arrives as it was raised."""

    def fail(text: str) -> list[tuple[int, int]]:
        msg = "mine"
        raise TypeError(msg)

    with pytest.raises(TypeError, match="mine"):
        split_steps(split_reasoning(["a"]), fail)


@pytest.mark.parametrize("splitter", ODD_VALUES, ids=repr)
def test_a_splitter_of_another_type_is_refused(splitter: Any) -> None:
    """The error names the splitters that there are, also for values that no dict could look up."""
    with pytest.raises(OptionError, match='step_splitter=.*"sentence", "line", "paragraph" or a function'):
        get_splitter(splitter)


def test_an_unknown_splitter_is_refused() -> None:
    """With the closest name."""
    with pytest.raises(OptionError, match="`step_splitter='lines'` is not allowed.*Did you mean `line`"):
        get_splitter("lines")


def test_sentences_are_the_default() -> None:
    """A step is a sentence unless the user says otherwise."""
    assert get_splitter("sentence") is split_sentences


def test_a_token_with_two_steps_belongs_to_the_first() -> None:
    """A step whose only token is taken joins the step before."""
    (span,) = split_steps(split_reasoning(["It. So."]))
    assert (span.start, span.end, span.text_start, span.text_end) == (0, 1, 0, 7)


def test_a_token_of_the_answer_and_of_a_call_belongs_to_the_first() -> None:
    """A token that ends the answer and begins a call, or the other way round, is counted once."""
    answer_first = split_steps(split_reasoning(["a ", "b<tool_call>", "{}", "</tool_call>"], HERMES))
    assert [(s.kind, s.start, s.end) for s in answer_first] == [("answer", 0, 2), ("tool_call", 2, 4)]
    call_first = split_steps(split_reasoning(["<tool_call>", "{}</tool_call>b", "c"], HERMES))
    assert [(s.kind, s.start, s.end) for s in call_first] == [("tool_call", 0, 2), ("answer", 2, 3)]


def test_a_step_with_all_its_tokens_in_another_part_is_left_out() -> None:
    """Of an answer and a call in one and the same token only the first is a step."""
    (step,) = split_steps(split_reasoning(["b<tool_call>{}</tool_call>"], HERMES))
    assert (step.kind, step.start, step.end) == ("answer", 0, 1)

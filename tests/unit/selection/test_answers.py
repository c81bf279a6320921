"""Answers are read so that equal ones are equal texts, whatever a model writes."""

from __future__ import annotations

import json
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from pydantic import BaseModel

from langnorm.errors import OptionError
from langnorm.selection.answers import ANSWER_FORMS, check_answer_form, last_line, name_of_form, read_answer
from langnorm.selection.canonical import canonical

DEEP = 100_000  # brackets: more than any recursion bears


class Sum(BaseModel):
    """What a parser of the tests returns."""

    value: float
    terms: list[float] = []


class Colour(StrEnum):
    """A text with a name."""

    RED = "red"


async def read_later(text: str) -> str:
    """Returns an answer that has to be awaited."""
    return text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Because.\n\nYes!\n", "yes"),
        ("**Paris**", "paris"),
        ("  New   York. \n ---\n***\n", "---"),
        ("a\n\n***\n", "a"),
        ("So:\nx = 5", "5"),
        ("1,234.", "1234"),
        ("STRASSE\n", "strasse"),
        ("\n \n", None),
        ("", None),
    ],
)
def test_the_last_line_that_says_something(text: str, answer: str | None) -> None:
    """In lower case, without marks around it."""
    assert last_line(text) == answer


def test_names_stand_for_their_functions() -> None:
    """They are those that the documentation lists."""
    assert list(ANSWER_FORMS) == ["auto", "number", "boxed", "line"]
    for name, read in ANSWER_FORMS.items():
        assert read_answer(name, "So:\n\\boxed{4} of 5 ") == read("So:\n\\boxed{4} of 5 ")


@pytest.mark.parametrize(
    ("returned", "answer"),
    [
        (None, None),
        ("", None),
        ("As It Is.", "As It Is."),
        (0, "0"),
        (5.0, "5"),
        (False, "false"),
        ([], "[]"),
        ((1, "a"), '[1, "a"]'),
        ({"b": 2, "a": {"d": -0.0, "c": None}}, '{"a": {"c": null, "d": 0}, "b": 2}'),
        ({2: "a", "b": 1}, '{"2": "a", "b": 1}'),
        (Sum(value=2), '{"terms": [], "value": 2}'),
        ([Sum(value=0.5, terms=[1])], '[{"terms": [1], "value": 0.5}]'),
        (Colour.RED, "red"),
        (float("inf"), "Infinity"),
        (1 + 2j, '"(1+2j)"'),
        (Decimal("18.00"), "18"),
        (Decimal("1.50"), '"1.5"'),
        (Decimal("NaN"), "\"Decimal('NaN')\""),
        (map(int, "12"), "[1, 2]"),
        (object(), None),
        ([object()], None),
        (iter, '"<built-in function iter>"'),
        (lambda: 1, None),
    ],
)
def test_functions_return_any_value(returned: Any, answer: str | None) -> None:
    """Texts stay as they are, all else becomes JSON; None, an empty text and what has no value are no answer."""
    assert read_answer(lambda _: returned, "text") == answer


def test_half_a_surrogate_pair_is_spelled_out() -> None:
    """JSON has a way to name it; no file and no server's answer can have it as it is."""
    assert read_answer("auto", '["\\ud800"]') == '["\\ud800"]'
    assert read_answer(JsonOutputParser(), '"\\ud800"') == "\\ud800"


def test_equal_sets_are_equal_texts() -> None:
    """In whichever order they iterate."""
    assert list({0, 8}) != list({8, 0})
    assert canonical({0, 8}) == canonical({8, 0}) == canonical(frozenset({0, 8}))


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9).map(lambda x: round(x, 1)) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(_json_values)
def test_canonical_forms_say_what_the_value_is(value: Any) -> None:
    """Read back, they are equal to it; the order of keys and the kind of a number make no difference."""
    assert isinstance(value, str) or json.loads(canonical(value)) == value
    if isinstance(value, dict):
        assert canonical(dict(reversed(value.items()))) == canonical(value)


@given(st.integers(-(2**53), 2**53))
def test_whole_numbers_are_equal_texts(value: int) -> None:
    """As integers, as floats, and inside of something else."""
    assert canonical(value) == canonical(float(value)) == str(value)
    assert canonical({"a": [value]}) == canonical({"a": (float(value),)})


def test_errors_of_values_are_no_answer() -> None:
    """Other errors are the function's own and come through."""
    assert read_answer(int, "12") == "12"
    assert read_answer(int, "twelve") is None
    with pytest.raises(IndexError):
        read_answer(lambda text: text.split("=")[1], "no equals sign")


def test_parsers_of_langchain_read_answers() -> None:
    """What they cannot parse has no answer, however deep it is."""
    parser = PydanticOutputParser(pydantic_object=Sum)
    assert read_answer(parser, '{"value": 3}') == canonical(Sum(value=3))
    assert read_answer(parser, '{"value": "three"}') is None
    assert read_answer(parser, "three") is None
    assert read_answer(JsonOutputParser(), 'So: ```json\n{"b": 1.0, "a": 2}\n```') == '{"a": 2, "b": 1}'
    assert read_answer(JsonOutputParser(), "So: {") in (None, "{}")
    assert read_answer(JsonOutputParser(), "") is None
    assert read_answer(JsonOutputParser(), "[" * DEEP) is None
    assert read_answer(StrOutputParser(), "As It Is.") == "As It Is."


def test_tool_calls_are_an_answer_of_their_own() -> None:
    """Whatever the text says, and with whatever id and order of arguments; the order of calls counts."""
    first = {"name": "add", "args": {"a": 1, "b": 2.0}, "id": "1", "type": "tool_call"}
    same = {"id": "2", "args": {"b": 2, "a": 1}, "name": "add"}
    other = {"name": "multiply", "args": {"a": 1, "b": 2}}
    answer = read_answer("number", "It is 3.", [first])
    assert answer == '[{"args": {"a": 1, "b": 2}, "name": "add"}]'
    assert read_answer(lambda _: "never asked", "", [same]) == answer
    assert read_answer("number", "", [other]) != answer
    assert read_answer("number", "", [first, other]) != read_answer("number", "", [other, first])


def test_arguments_that_are_nested_too_deep_are_no_answer() -> None:
    """They raise nothing."""
    nested: list[Any] = []
    for _ in range(10_000):
        nested = [nested]
    assert read_answer("auto", "", [{"name": "add", "args": {"a": nested}}]) is None


@pytest.mark.parametrize("form", [*ANSWER_FORMS, len, str.upper, partial(int, base=2), JsonOutputParser()])
def test_forms_are_names_functions_and_parsers(form: Any) -> None:
    """They are taken."""
    check_answer_form(form)


@pytest.mark.parametrize(
    ("form", "hint"),
    [
        ("numbr", r'"number", .* a function of the text, or an output parser\. Did you mean `number`\?'),
        ("Boxed", "Did you mean `boxed`"),
        ("", 'Use "auto"'),
        (None, 'Use "auto"'),
        (3, 'Use "auto"'),
        ([], 'Use "auto"'),
        (read_later, "a function that is not async"),
        (JsonOutputParser, r"Give an instance of it: `answer=JsonOutputParser\(\.\.\.\)`"),
    ],
)
def test_other_forms_are_refused(form: Any, hint: str) -> None:
    """The error says what there is, and the closest name."""
    with pytest.raises(OptionError, match=hint):
        check_answer_form(form)


def test_forms_have_names_for_messages() -> None:
    """A function its own, a parser that of its class."""
    forms = ("auto", last_line, JsonOutputParser(), partial(int, base=2))
    assert list(map(name_of_form, forms)) == ["auto", "last_line", "JsonOutputParser", "partial"]

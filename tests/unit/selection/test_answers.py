"""Answers are read so that equal ones are equal texts, whatever a model writes."""

from __future__ import annotations

import json
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from pydantic import BaseModel

from langnorm.errors import OptionError
from langnorm.selection.answers import (
    ANSWER_FORMS,
    any_form,
    canonical,
    check_answer_form,
    last_boxed,
    last_line,
    last_number,
    name_of_form,
    read_answer,
)

DEEP = 100_000  # brackets: more than any recursion bears


class Sum(BaseModel):
    """What a parser of the tests returns."""

    value: float
    terms: list[float] = []


class Colour(StrEnum):
    """A text with a name."""

    RED = "red"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The sum is 1,234.50 in all.", "1234.5"),
        ("12,345,678", "12345678"),
        ("-5", "-5"),
        ("It is \u22125.", "-5"),
        ("x = **-5**", "-5"),
        ("-$5.00", "-5"),
        ("$5.00", "5"),
        ("47-385", "385"),
        ("(3)-5", "5"),
        ("47 - 385", "385"),
        ("5--3", "-3"),
        ("step-2", "2"),
        ("The answer is 432.", "432"),
        ("3.14.", "3.14"),
        ("So it is ...5", "5"),
        ("9" * 30, "9" * 30),
        (f"0.{'1' * 30}", f"0.{'1' * 30}"),
        ("9" * 5000, "9" * 5000),
        ("007", "7"),
        ("-0.00", "0"),
        ("10.0", "10"),
        ("100", "100"),
        (".5", "0.5"),
        ("-.50", "-0.5"),
        ("1e5", "100000"),
        ("1.5E-3", "0.0015"),
        ("1e500", "1"),  # no plain digits of that
        ("2em", "2"),
        ("5kg, or 3rd", "3"),
        ("\u0663", "3"),
    ],
)
def test_numbers_are_in_plain_digits(text: str, number: str) -> None:
    """The last one counts, with its sign and all its digits."""
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3/4", "0.75"),
        ("6/8", "0.75"),
        ("-2/6", "-1/3"),
        ("4/2", "2"),
        ("1/1,000", "0.001"),
        ("0.5/1.5", "1/3"),
        ("0/7", "0"),
        ("3/0", "3/0"),
        ("5/", "5"),
        (f"{'1' * 200}/{'1' * 200}", f"{'1' * 200}/{'1' * 200}"),
    ],
)
def test_fractions_are_in_lowest_terms(text: str, number: str) -> None:
    """Those that are decimals are written so; one that is no number, or as long as no answer is, stays as it is."""
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"), [("1,23", "23"), ("1,2345", "2345"), ("1000,200", "200"), ("(3, 4)", "4"), ("1,234,5", "5")]
)
def test_commas_are_separators_of_thousands_only(text: str, number: str) -> None:
    """Elsewhere they separate numbers, of which no digit is lost."""
    assert last_number(text) == number


@pytest.mark.parametrize("text", ["", "none", "x_1", "H2O", "v1", "...", "-", "\u00bd"])
def test_texts_without_a_number_have_none(text: str) -> None:
    """Digits that belong to a word are no number."""
    assert last_number(text) is None


def test_the_version_of_something_is_not_read_from_its_middle() -> None:
    """Of 1.2.3 there is 1.2, and not 3."""
    assert last_number("1.2.3") == "1.2"


@given(st.fractions(max_denominator=10_000), st.integers(1, 20))
def test_equal_numbers_are_equal_texts(value: Fraction, factor: int) -> None:
    """However they are written, and unequal ones are not."""
    found = last_number(f"so {value.numerator * factor}/{value.denominator * factor}.")
    assert found is not None
    assert Fraction(found) == value
    assert last_number(f"It is {str(value).replace('-', chr(0x2212))}") == found


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=4))
def test_separators_and_zeros_do_not_matter(value: Decimal) -> None:
    """Nor does the place where the number stands."""
    found = last_number(f"{value}")
    assert found is not None
    assert Decimal(found) == value
    assert last_number(f"7, {value:,}00 in all") == found
    assert last_boxed(rf"\boxed{{{value:,}}}") == last_line(f"= 3\n**{value:,}**\n") == found


@given(st.text(alphabet="0123456789.,-/\u2212$eE+ x()[]{}\\\n", max_size=60) | st.text(max_size=60))
def test_no_text_is_refused(text: str) -> None:
    """Whatever a model writes, an answer is a text that says something, or None; reading it again changes nothing."""
    for read in ANSWER_FORMS.values():
        assert read(text) is None or read(text)
    if found := last_number(text):
        assert last_number(found) == found


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{42}", "42"),
        (r"\boxed{1,234.0}", "1234"),
        (r"\boxed{.5}", "0.5"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ x  +\n 1 . }".replace(r"\n", "\n"), "x + 1"),
        (r"\boxed{5!}", "5!"),
        (r"\boxed{f'}", "f'"),
        (r"First \boxed{1}, then \boxed{2}.", "2"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{3", None),
        (r"\boxed{}", None),
        (r"\boxed{$}", None),
        ("42", None),
        ("", None),
    ],
)
def test_the_last_boxed_answer_whose_braces_close(text: str, answer: str | None) -> None:
    """A number in it is in plain digits; marks that mean something in a formula stay."""
    assert last_boxed(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Because.\n\nYes!\n", "yes"),
        ("**Paris**", "paris"),
        ("  New   York. \n ---\n***\n", "---"),
        ("a\n\n***\n", "a"),
        ("1,234.", "1234"),
        ("STRASSE\n", "strasse"),
        ("\n \n", None),
        ("", None),
    ],
)
def test_the_last_line_that_says_something(text: str, answer: str | None) -> None:
    """In lower case, without marks around it."""
    assert last_line(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"b": 1.0, "a": [2, "7"]}', '{"a": [2, "7"], "b": 1}'),
        (" [1, 2]\n", "[1, 2]"),
        ('"7"', "7"),
        (r"It is 3, so \boxed{4}, not 5", "4"),
        (r"It is 3, so \boxed{4", "4"),
        ("It is 3.\nOr so.", "3"),
        ("Yes.\nI think.", "i think"),
        ("", None),
        ("[" * DEEP, "[" * DEEP),
        ("[" * 900 + "]" * 900, "[" * 900 + "]" * 900),
        ("[" + "9" * 5000 + "]", "9" * 5000),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_first_form_that_finds_something(text: str, answer: str | None) -> None:
    """JSON, what is boxed, a number, the last line; brackets that never close raise nothing."""
    assert any_form(text) == read_answer("auto", text) == answer


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
    ],
)
def test_functions_return_any_value(returned: Any, answer: str | None) -> None:
    """Texts stay as they are, all else becomes JSON; None and an empty text are no answer."""
    assert read_answer(lambda _: returned, "text") == answer


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

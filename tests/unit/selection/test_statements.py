"""The answer of a response is what it states, not the last number in it."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.selection.answers import ANSWER_FORMS, read_answer
from langnorm.selection.statements import stated_answer, stated_number
from tests.support.operations import calls_made

CASES = tomllib.loads((Path(__file__).parents[2] / "fixtures" / "stated_answers.toml").read_text(encoding="utf-8"))
DEEP = 100_000  # brackets: more than any recursion bears


@pytest.mark.parametrize("kind", ["alone", "boxed", "stated", "concluded"])
def test_answers_are_those_that_a_reader_finds(kind: str) -> None:
    """Alone, in a box, behind "the answer is", or in the last sentence; in numbers, words, formulas, lists and JSON."""
    wrong = {text: (found, answer) for text, answer in CASES[kind] if (found := stated_answer(text)) != answer}
    assert not wrong


def test_there_are_many_cases() -> None:
    """Enough of each kind to mean something."""
    assert sum(len(CASES[kind]) for kind in ("alone", "boxed", "stated", "concluded")) >= 150


@pytest.mark.parametrize("texts", CASES["equal"], ids=lambda texts: texts[0])
def test_equal_answers_are_one_vote(texts: list[str]) -> None:
    """However they are written."""
    assert len({stated_answer(text) for text in texts}) == 1


@pytest.mark.parametrize("texts", CASES["different"], ids=lambda texts: texts[0])
def test_other_answers_are_other_votes(texts: list[str]) -> None:
    """Also where they end with the same number."""
    assert len({stated_answer(text) for text in texts}) == len(texts)


@pytest.mark.parametrize("text", CASES["none"])
def test_a_blank_text_has_no_answer(text: str) -> None:
    """Nor has it a number."""
    assert stated_answer(text) is None
    assert stated_number(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 18 because 20 - 2 is 18.", "18"),
        (r"So \boxed{x = 5}, of 6", "5"),
        (r"It is \boxed{B}. The answer is 3.", "3"),
        ("#### 1,234", "1234"),
        ("It is 3.\nOr so.", "3"),
        ("He has 3. Let me know if you have 2 questions.", "3"),
        ("Buy 3 apples with 5 pears.", "5"),
        ("It starts at 5:30 pm.", None),
        ("Paris", None),
        ("(A) 18", "18"),
        ("```\nx = 5\n```", None),
        ("", None),
    ],
)
def test_the_form_number_finds_numbers_only(text: str, number: str | None) -> None:
    """The stated one; else that of the last sentence that has any; times, dates and letters are none."""
    assert stated_number(text) == read_answer("number", text) == number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[" * DEEP, "[" * DEEP),
        ("[" * 900 + "]" * 900, "[" * 900 + "]" * 900),
        ("```json\n" + "[" * DEEP + "\n```", None),
        ("```python\nprint(1)\n```", "python print(1)"),
        ("Let me know.", "let me know"),
        ('"7"', "7"),
        ("The answer is", "answer is"),
        ("The answer is:\n\n", "answer is"),
        ("It is 3.\nOr so.", "or so"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_odd_texts(text: str, answer: str | None) -> None:
    """Brackets that never close raise nothing; what says nothing else is an answer as it is worded."""
    found = stated_answer(text)
    assert found == answer or (answer is None and found)


@given(st.text(alphabet="0123456789.,-/$ x()[]{}\\\n:*=`#Aa", max_size=60) | st.text(max_size=60))
def test_no_text_is_refused(text: str) -> None:
    """Whatever a model writes, an answer is a text that says something, or None."""
    for read in ANSWER_FORMS.values():
        assert read(text) is None or read(text)


UNITS = [
    "\\boxed{", "\\boxed{1", "{", "}", "\\frac{", "\\frac{1}{", "\\text{a", "(", "(1,", "1,234,", "123,", "123 ", "1:",
    "1 : ", "1/", "9", "x=", "x = 1, ", "= or ", "answer ", "answer is ", "answer to a ", "**1", "*",
    " ", "####", "#### 1\n",
    "aa-", "5 aa ", "$5 ", "is 5 and ", "- a\n", "1. a ", "jan ", "1 jan ", "\\{", "~",
    "Yes. ", "so, ", "```json\n{\n```\n",
    "twenty-", "2^9 ", "it is ", "≈", "(a) ", "答案是",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS, ids=repr)
@pytest.mark.parametrize("form", ["auto", "number"])
def test_the_work_grows_with_the_length_only(form: str, unit: str) -> None:
    """In calls; and inside of regular expressions, where none can be counted, no time is lost."""
    read = ANSWER_FORMS[form]
    few, many = (calls_made(lambda n=n: read((unit * n)[:n])) for n in (500, 2_000))
    assert many < 6 * few + 100
    started = time.process_time()
    read((unit * 8_000)[:8_000])
    assert time.process_time() - started < 5  # 0.5 at most; what is quadratic takes minutes

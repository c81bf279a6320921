"""Values that are equal become equal texts, however they are written."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.selection.quantities import number_in_words, quantities
from langnorm.selection.values import even, known_value, last_box, plain, wording


def found(text: str) -> list[str]:
    """Return the values of the quantities of a text."""
    return [one.value for one in quantities(text)]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("The sum is 1,234.50 in all.", ["1234.5"]),
        ("12,345,678", ["12345678"]),
        ("1'234'567", ["1234567"]),
        ("1 234 567 people", ["1234567"]),
        ("1\u202f234", ["1234"]),
        ("It is \u22125.", ["-5"]),
        ("-$5.00 and $-5", ["-5", "-5"]),
        ("47-385", ["47", "385"]),
        ("(3)-5", ["3", "5"]),
        ("47 - 385", ["47", "385"]),
        ("5--3", ["5", "-3"]),
        ("step-2", ["2"]),
        ("+5", ["5"]),
        ("So it is ...5", ["5"]),
        ("9" * 5000, ["9" * 5000]),
        (f"0.{'1' * 30}", [f"0.{'1' * 30}"]),
        ("007, -0.00, 10.0, 100, .5", ["7", "0", "10", "100", "0.5"]),
        ("1e5, 1.5E-3, 2em", ["100000", "0.0015", "2"]),
        ("3.5 x 10^6, 3.5*10^{-2}, 2^10, 10^3", ["3500000", "0.035", "1024", "1000"]),
        ("0^5, 9^999, cm^2, x^{2}", ["0^5", "9^999"]),
        ("3/4, 6/8, 4/2, 2/6, 1/1,000, 0.5/1.5", ["0.75", "0.75", "2", "1/3", "0.001", "1/3"]),
        ("3/0, 5/, 1 1/0", ["3/0", "5", "1 1/0"]),
        (f"{'1' * 200}/{'1' * 200}", [f"{'1' * 200}/{'1' * 200}"]),
        ("1 1/2, 12 3/4", ["1.5", "12.75"]),
        ("5 million, 1.5 thousand", ["5000000", "1500"]),
        ("1,23; 1,2345; 1000,200; (3, 4); 1,234,5", ["1", "23", "1", "2345", "1000", "200", "3", "4", "1234", "5"]),
        ("x_1, H2O, v1, a.", []),
        ("1.2.3", ["1.2"]),
        ("\u0663", ["3"]),
        ("5:30, 5:30 pm, 12:00 a.m., 2 PM, 13:05:07", ["5:30", "17:30", "0:00", "14:00", "13:05:07"]),
        ("1:2:3 and 10:100", ["1:2:3", "10:100"]),
        ("3 : 2", ["3:2"]),
        ("2024-01-05, Jan. 5, May 3rd, 2020, 4 of July", ["2024-01-05", "01-05", "2020-05-03", "07-04"]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_numbers_times_and_dates(text: str, values: list[str]) -> None:
    """All digits are kept; what belongs to a word is none, and a sign only where nothing stands before it."""
    assert found(text) == values


@given(st.fractions(max_denominator=10_000), st.integers(1, 20))
def test_equal_numbers_are_equal_texts(value: Fraction, factor: int) -> None:
    """However they are written, and unequal ones are not."""
    (one,) = found(f"so {value.numerator * factor}/{value.denominator * factor}.")
    assert Fraction(one) == value
    assert found(f"It is {str(value).replace('-', chr(0x2212))}") == [one]


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=4))
def test_separators_and_zeros_do_not_matter(value: Decimal) -> None:
    """Nor do the unit, the sign of a currency, and what only sets the number."""
    expected = even(str(value))
    assert Decimal(expected) == value
    sign, digits = "-" * (value < 0), f"{abs(value):,}"
    texts = [f"{value:,}00", f"{value:,} dollars", f"{sign}${digits}", rf"\({value}\)", f"**{value}**", f"{value}%"]
    texts.append(rf"\text{{{value!s}}}" + r"\text{ km}")
    texts.append(f"x = {digits}".replace("= ", f"= {sign}").replace(",", "{,}"))
    assert {even(text) for text in texts} == {"0" if expected == "-0" else expected}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("seven", "7"),
        ("Twenty-One", "21"),
        ("thirty apples", "30"),
        ("zero", "0"),
        ("one of them", None),
        ("ten-two", None),
    ],
)
def test_numbers_in_words(text: str, number: str | None) -> None:
    """Alone or with their unit."""
    assert number_in_words(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "3x",
        "5 x",
        r"2\pi",
        r"\sqrt{2}",
        "5!",
        "Paris",
        "No apples",
        "2 or 3",
        "4 is even",
        "A dog",
        "x = 2, y = 3",
        "5 and",
        "",
    ],
)
def test_what_is_no_value_of_a_known_kind(text: str) -> None:
    """A formula, words, and several values are not read as their first number."""
    assert known_value(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  New   York. ", "new york"),
        ("The Nile", "nile"),
        ("x + 1", "x+1"),
        ("2 sin x", "2 sin x"),
        (r"x^2 - \frac{a}{b}", "x^2-(a)/(b)"),
        ("1 2", "1 2"),
        ("f'", "f'"),
        ("$$", ""),
        ("---", "---"),
        ("A and C", "a and c"),
    ],
)
def test_wordings(text: str, said: str) -> None:
    """Words are in lower case with single spaces, formulas without any."""
    assert wording(text) == said


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{\frac{1}{2}} {x}", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        (r"\fbox{3} }", "3"),
        (r"\boxed {3}", "3"),
        (r"\boxed{3", None),
        (r"\boxed{}", ""),
        ("42", None),
    ],
)
def test_the_last_box_whose_braces_close(text: str, inside: str | None) -> None:
    """Braces inside of it count, those with a backslash do not."""
    assert last_box(text) == inside


@given(st.text(alphabet="0123456789.,-/\u2212$%eE^+ x()[]{}\\\n:ampA=", max_size=60) | st.text(max_size=60))
def test_no_text_is_refused(text: str) -> None:
    """Whatever a model writes; and quantities are in order, without overlap."""
    assert isinstance(even(text), str)
    assert isinstance(plain(text), str)
    edges = [edge for one in quantities(text) for edge in (one.start, one.end)]
    assert edges == sorted(edges)

"""Arguments of calls that are not written as JSON."""

from __future__ import annotations

from typing import Any

import pytest

from langnorm.text.call_values import coerced, python_calls


@pytest.mark.parametrize(
    ("written", "types", "value"),
    [
        ("2.0", ["integer"], 2),
        ("2.0", ["integer", "null"], 2),
        ("2.0", ["integer", "number"], 2.0),
        ("2.5", ["integer", "null"], "2.5"),
        ("null", ["integer", "null"], None),
        ("2.0", ["integer", "string"], "2.0"),
    ],
)
def test_a_value_has_one_of_the_types_of_its_schema(written: str, types: list[str], value: Any) -> None:
    """However the schema names several; a whole number is an integer where nothing else may be one."""
    for schema in ({"type": types}, {"anyOf": [{"type": kind} for kind in types]}):
        found = coerced(written, schema)
        assert (found, type(found)) == (value, type(value))


def test_half_of_a_character_is_no_argument() -> None:
    """In Python's notation as in JSON."""
    assert python_calls(r'f(a="\U0001f600")') == [("f", {"a": "\U0001f600"})]
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        python_calls(r'f(a=["\ud83d"])')


def test_a_number_that_cannot_be_written_in_decimal_is_no_argument() -> None:
    """Python reads one of any length in hexadecimal, and writes no more than some thousand digits of it."""
    for number in ("0x" + "f" * 4000, "-0x" + "f" * 4000):
        with pytest.raises(ValueError, match="digits"):
            python_calls(f"f(a=[{number}])")
    assert python_calls("f(a=0xff)") == [("f", {"a": 255})]

"""Checks of single options say what was given and what is allowed."""

from __future__ import annotations

import pytest

from langnorm.checks import check_choice, check_flag, check_integer, check_number
from langnorm.errors import OptionError


@pytest.mark.parametrize("value", [True, 0, 1.0, "2", None])
def test_integers_are_checked(value) -> None:
    """An integer is large enough, and no boolean."""
    check_integer("most", 1, low=1)
    with pytest.raises(OptionError, match="`most=.*` is not allowed. Use an integer from 1."):
        check_integer("most", value, low=1)


@pytest.mark.parametrize("value", [True, 0, 1, float("nan"), float("inf"), "0.5", None])
def test_numbers_are_checked(value) -> None:
    """A number is finite and in its range; ends may be open."""
    check_number("share", 0.5, low=0, high=1, is_low_open=True, is_high_open=True)
    words = "`share=.*` of `pull` is not allowed. Use a number above 0, below 1."
    with pytest.raises(OptionError, match=words):
        check_number("share", value, low=0, high=1, is_low_open=True, is_high_open=True, owner="pull")


def test_numbers_of_any_size_need_only_be_finite() -> None:
    """Without a range all numbers will do."""
    check_number("eps", -1e300)
    with pytest.raises(OptionError, match="Use any number."):
        check_number("eps", float("nan"))


def test_words_and_flags_are_checked() -> None:
    """The closest word is named; 1 is not True."""
    check_choice("mode", "flag", ("flag", "retry", "stop"))
    check_flag("deep", value=True)
    words = '`mode=\'flog\'` is not allowed. Use "flag", "retry" or "stop". Did you mean `flag`'
    with pytest.raises(OptionError, match=words):
        check_choice("mode", "flog", ("flag", "retry", "stop"))
    with pytest.raises(OptionError, match="`deep=1` is not allowed. Use True or False"):
        check_flag("deep", 1)

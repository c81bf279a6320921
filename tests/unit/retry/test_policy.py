"""The options of retries are checked when they are made, in one place for all that retry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from langnorm import NormRetry
from langnorm.chat_models import ChatLangNorm
from langnorm.errors import OptionError
from langnorm.retry.policy import RetryPolicy


@pytest.mark.parametrize("value", [True, -0.1, 1.1, "0.3", None, float("nan")])
def test_shares_are_checked(value) -> None:
    """A share is a number from 0 to 1."""
    assert RetryPolicy(max_low_share=1).max_low_share == 1
    with pytest.raises(OptionError, match="`max_low_share=.*` is not allowed. Use a number from 0 to 1"):
        RetryPolicy(max_low_share=value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_attempts": 0}, "`max_attempts=0` is not allowed"),
        ({"max_attempts": True}, "`max_attempts=True` is not allowed"),
        ({"on_exhausted": "lst"}, "Did you mean `last`"),
        ({"retry_tool_calls": 1}, "`retry_tool_calls=1` is not allowed"),
        ({"escalation": []}, "at least one step"),
    ],
)
def test_wrong_options_are_refused(options, message) -> None:
    """The error names the option and what it was."""
    with pytest.raises(OptionError, match=message):
        RetryPolicy(**options)


def test_the_steps_of_a_policy_are_checked_once() -> None:
    """Names become settings, and a copy has the same steps."""
    policy = RetryPolicy(escalation=["resample", {"max_tokens": 5}])
    assert policy.steps == ({}, {"max_tokens": 5})
    assert replace(policy, max_attempts=1).steps == policy.steps


def test_the_options_of_a_runnable_may_be_set_later() -> None:
    """They are LangChain fields; one that is not allowed is refused by the next call."""
    retry = NormRetry(ChatLangNorm())
    retry.max_low_share = 2
    with pytest.raises(OptionError, match="`max_low_share=2` is not allowed"):
        retry.invoke("Hi!")

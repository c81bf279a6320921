"""Errors in OpenAI's form, and back."""

from __future__ import annotations

import pytest

from langnorm.errors import (
    MemoryLimitError,
    MissingDependencyError,
    ModelError,
    OptionError,
    PromptError,
    RemoteError,
)
from langnorm.wire.errors import WireError, error_status, read_error, write_error


@pytest.mark.parametrize(
    "kind", [OptionError, PromptError, ModelError, MemoryLimitError, MissingDependencyError, TimeoutError]
)
def test_an_error_of_ours_arrives_as_it_was(kind: type[Exception]) -> None:
    """Class and words are the same on both sides."""
    body = write_error(kind("`n=0` is not allowed. Use 1."))
    arrived = read_error(body, error_status(kind("")), "http://x")
    assert type(arrived) is kind
    assert str(arrived) == "`n=0` is not allowed. Use 1."


def test_the_form_is_that_of_openai() -> None:
    """With the option that an error is about, where it is about one."""
    assert write_error(OptionError("`n=0` is not allowed.")) == {
        "error": {
            "message": "`n=0` is not allowed.",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_option",
        }
    }
    assert error_status(WireError("x", status=429)) == 429
    assert write_error(WireError("x", status=503, code="y"))["error"]["type"] == "server_error"


def test_what_nobody_raised_on_purpose_is_not_told() -> None:
    """It may quote what is nobody's business; the log has it."""
    error = ValueError("the password is 123")
    assert error_status(error) == 500
    assert "123" not in str(write_error(error))


@pytest.mark.parametrize(
    ("body", "status", "match"),
    [
        ({"error": {"message": "no", "code": "invalid_api_key"}}, 401, "Give the right one as `api_key`"),
        ({"error": {"message": "too many", "code": "x"}}, 429, "the status 429: too many"),
        ("<html>bad gateway", 502, "the status 502: '<html>bad gateway'"),
        ({"error": "odd"}, None, "with an error"),
        (None, 500, "the status 500"),
    ],
)
def test_errors_of_others_say_where_they_come_from(body: object, status: int | None, match: str) -> None:
    """They are RemoteErrors, with the status."""
    error = read_error(body, status, "http://x")
    assert isinstance(error, RemoteError)
    assert error.status == status
    assert match in str(error)
    assert str(error).startswith("http://x")

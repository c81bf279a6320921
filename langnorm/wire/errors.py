"""Errors in OpenAI's form, and back: which status and code each of langnorm's errors has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from langnorm.checks import brief
from langnorm.errors import (
    LangNormError,
    MemoryLimitError,
    MissingDependencyError,
    ModelError,
    OptionError,
    PromptError,
    RemoteError,
)

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"

_KINDS: Mapping[type[Exception], tuple[int, str, str]] = {
    OptionError: (400, INVALID_REQUEST, "invalid_option"),
    PromptError: (400, INVALID_REQUEST, "invalid_prompt"),
    ModelError: (400, INVALID_REQUEST, "not_supported_by_model"),
    MemoryLimitError: (400, INVALID_REQUEST, "out_of_memory"),
    MissingDependencyError: (501, SERVER_ERROR, "missing_dependency"),
    TimeoutError: (504, SERVER_ERROR, "timeout"),
}
"""Status, type and code of each kind of error. None of them goes away when the same is asked again."""

_BY_CODE = {code: kind for kind, (_, _, code) in _KINDS.items()}
_FIRST_OPTION = re.compile(r"`([\w.]+)=")

AGAIN = frozenset({429, 503})
"""Statuses after which the same may be asked again."""


class WireError(LangNormError):
    """What a server refuses a request for, apart from langnorm's own errors.

    Attributes:
        status: Of the HTTP response.
        code: A word for programs.
        type: OpenAI's word for the kind of error.
        param: The field of the request that it is about, or None.
        retry_after: Seconds after which the same may be asked again, or None.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int = 400,
        code: str = "invalid_request",
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.type = INVALID_REQUEST if status < 500 else SERVER_ERROR
        self.param = param
        self.retry_after = retry_after


def error_status(error: BaseException) -> int:
    """Return the HTTP status of an error: 500 for one that nobody has raised on purpose."""
    if isinstance(error, WireError):
        return error.status
    return next((status for kind, (status, _, _) in _KINDS.items() if isinstance(error, kind)), 500)


def write_error(error: BaseException) -> dict[str, Any]:
    """Return an error in OpenAI's form; of one that nobody has raised on purpose, nothing but that there was one."""
    if isinstance(error, WireError):
        return _form(str(error), error.type, error.code, error.param)
    for kind, (_, word, code) in _KINDS.items():
        if isinstance(error, kind):
            text = str(error)
            option = _FIRST_OPTION.match(text) if kind is OptionError else None
            return _form(text, word, code, option[1] if option else None)
    return _form("The server has met an error, which its log describes.", SERVER_ERROR, "internal_error", None)


def _form(message: str, word: str, code: str, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": word, "param": param, "code": code}}


def read_error(body: Any, status: int | None, where: str) -> Exception:
    """Return the error that a server has answered with: one of langnorm's own where it is one, else a `RemoteError`.

    Args:
        body: The answer, as far as it is JSON, or else its text.
        status: Of the HTTP response; None of an error inside a stream.
        where: The address, for an error that does not say by itself where it comes from.
    """
    error = body.get("error") if isinstance(body, Mapping) else None
    message = error.get("message") if isinstance(error, Mapping) else None
    code = error.get("code") if isinstance(error, Mapping) else None
    if isinstance(message, str) and isinstance(code, str) and code in _BY_CODE:
        return _BY_CODE[code](message)
    told = f"the status {status}" if status else "an error"
    if status in (401, 403):
        msg = f"{where} does not take this key ({told}). Give the right one as `api_key`, or as LANGNORM_API_KEY."
        return RemoteError(msg, status)
    said = message if isinstance(message, str) else brief(body)
    msg = f"{where} has answered with {told}: {said}"
    return RemoteError(msg, status)

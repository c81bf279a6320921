"""Stands before everything: who may ask, and what becomes of errors."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langnorm.server.options import ServerOptions, is_local_name
from langnorm.wire.errors import AGAIN, WireError, error_status, write_error

_OPEN = "/health"  # to anybody, so that whoever watches the server needs no key

_log = logging.getLogger(__name__)


class JSON(Response):
    """A response in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the content as JSON."""
        return to_json(content)


class Guard:
    """Lets in who has the key, and answers errors in OpenAI's form.

    A server without a key that only this machine can reach answers to the names of this machine alone: a page in a
    browser here could otherwise ask it in the name of its user, by a host name of its own that leads here.

    Args:
        app: What is guarded.
        server: Has the key.
    """

    def __init__(self, app: ASGIApp, server: ServerOptions) -> None:
        self._app = app
        self._key = None if server.api_key is None else server.api_key.encode()
        self._has_local_names = server.is_local and server.api_key is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_started = False

        async def watched(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            self._check(scope)
            scope["app"] = self._app  # so that the router raises what it does not find
            await self._app(scope, receive, watched)
        except ClientDisconnect:  # there is nobody to answer
            return
        except Exception as error:
            if error_status(error) == 500 and not isinstance(error, HTTPException):
                _log.exception("A request has met an error.")
            if is_started:  # what has begun can only break off
                raise
            await error_response(error)(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._has_local_names:
            host = headers.get("host", "")
            name, bracket, _ = host.removeprefix("[").partition("]")
            if not is_local_name(name if bracket else host.partition(":")[0]):
                msg = "This server answers to localhost and loopback addresses. Start it with a key for other names."
                raise WireError(msg, status=403, code="wrong_host")
        if self._key is None or scope["path"] == _OPEN:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(key.strip().encode(errors="replace"), self._key)
        if scheme.lower() != "bearer" or not is_right:
            msg = "The key is missing or wrong. Send the header `Authorization: Bearer KEY`."
            raise WireError(msg, status=401, code="invalid_api_key")


def error_response(error: BaseException) -> Response:
    """Return the response for an error, with what tells clients whether to ask again."""
    if isinstance(error, HTTPException):  # of the router
        error = WireError(
            f"There is nothing at this address for this method ({error.detail}). Use `/v1/chat/completions`.",
            status=error.status_code,
            code="not_found",
        )
    status = error_status(error)
    return JSON(write_error(error), status, _headers(error, status))


def _headers(error: BaseException, status: int) -> Mapping[str, str]:
    headers = {"x-should-retry": "true" if status in AGAIN else "false"}  # which OpenAI's clients obey
    if isinstance(error, WireError):
        if error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        if status == 401:
            headers["www-authenticate"] = "Bearer"
    return headers

"""The bodies of requests: of limited size, in limited time, and JSON."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request

from langnorm.wire.errors import WireError

_SECONDS = 60.0


async def read_json(request: Request, most_bytes: int) -> Any:
    """Return what the body of a request says.

    Raises:
        WireError: It is too large, takes too long to come, or is no JSON.
        ClientDisconnect: The client has left.
    """
    # A page in a browser can send other types to any server, without being asked; this one it must ask for first.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        msg = f"The body is of the type `{kind}`. Send JSON, with the header `Content-Type: application/json`."
        raise WireError(msg, status=415, code="unsupported_media_type")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most_bytes:
        raise _too_large(most_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most_bytes:
                    raise _too_large(most_bytes)
    except TimeoutError:
        msg = f"The body has not come within {_SECONDS:g} seconds."
        raise WireError(msg, status=408, code="request_timeout") from None
    try:
        return from_json(bytes(body), allow_inf_nan=False)
    except ValueError as error:
        msg = f"The body is no JSON: {error}."
        raise WireError(msg, code="invalid_json") from None


def _too_large(most_bytes: int) -> WireError:
    msg = f"The body has more than {most_bytes:,} bytes, which is the limit of this server. Send less."
    return WireError(msg, status=413, code="request_too_large")

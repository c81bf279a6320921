"""HTTP as clients may write it, and no more of it than a server can keep: what the web server has to be able to do."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress

import pytest

from langnorm import ChatLangNorm
from langnorm.testing import ScriptedEngine
from tests.support.servers import LOOPBACK, post, question, running_server

pytestmark = LOOPBACK

LIMIT = 16 * 1024  # of h11, for the head of a request
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
BODY = b'{"messages": [{"role": "user", "content": "Hi."}]}'
WITH_LENGTH = b"content-length: %d\r\n\r\n" % len(BODY) + BODY
LAST = HEAD + b"connection: close\r\n" + WITH_LENGTH


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Returns the address of a server that says yes to all."""
    chat = ChatLangNorm(engine=ScriptedEngine(["Yes."], is_repeated=True), model="scripted")
    with running_server(chat, max_body_bytes=1000) as address:
        yield address


def talk(url: str, parts: Iterable[bytes]) -> tuple[int, bytes]:
    """Returns how many bytes of these were sent before the connection was ended, and all that came back."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    num_sent = 0
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
                num_sent += len(part)
        received = b""
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
        return num_sent, received


def endless(*beginning: bytes, repeated: bytes) -> Iterator[bytes]:
    """Yields a beginning, and then the same until nobody takes it, or hundreds of times what is allowed."""
    yield from beginning
    for _ in range(1600 * LIMIT // len(repeated)):
        yield repeated


@pytest.mark.parametrize(
    ("beginning", "repeated"),
    [
        pytest.param([b"GET /"], b"x" * 4096, id="address"),
        pytest.param([HEAD + b"x-name: "], b"x" * 4096, id="value"),
        pytest.param([HEAD], b"x" * 4096, id="name"),
        pytest.param([HEAD], b"x-name: value\r\n" * 200, id="headers"),
        pytest.param([], b"\r\n" * 2000, id="empty lines"),
        pytest.param([CHUNKED, b"1;"], b"x" * 4096, id="extension of a chunk"),
        pytest.param([CHUNKED, b"1\r\n{\r\n0\r\n"], b"x-name: value\r\n" * 200, id="headers after the body"),
    ],
)
def test_what_goes_on_and_on_is_ended(url: str, beginning: list[bytes], repeated: bytes) -> None:
    """The connection is, and others are not."""
    num_sent, _ = talk(url, endless(*beginning, repeated=repeated))
    assert num_sent < 800 * LIMIT
    assert post(url, question()).json()["choices"][0]["message"]["content"] == "Yes."


def test_what_is_allowed_is_read(url: str) -> None:
    """Large heads, bodies in many chunks, and requests that come before the answer to the first."""
    whole = HEAD + b"x-name: " + b"x" * (LIMIT - 500) + b"\r\n" + WITH_LENGTH
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    _, received = talk(url, pieces(whole + CHUNKED + chunks + whole + LAST))
    assert received.count(b"HTTP/1.1 200") == received.count(b"Yes.") == 4


def pieces(data: bytes) -> list[bytes]:
    """Returns data as it may come over a network."""
    return [data[at : at + 7000] for at in range(0, len(data), 7000)]


def test_many_requests_at_once_are_answered(url: str) -> None:
    """Together they have more bytes than the head of one may have."""
    get = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-name: " + b"x" * 1000 + b"\r\n\r\n"
    num_requests = 16 * LIMIT // len(get)
    _, received = talk(url, [get * num_requests, LAST])
    assert received.count(b"HTTP/1.1 200") == num_requests + 1


def test_another_protocol_is_not_had(url: str) -> None:
    """Java's client asks for HTTP/2 by its first request, whose body counts all the same."""
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
    for parts in ([HEAD + upgrade + WITH_LENGTH, LAST], [HEAD + upgrade + WITH_LENGTH + LAST]):
        _, received = talk(url, parts)
        assert received.count(b"HTTP/1.1 200") == received.count(b"Yes.") == 2

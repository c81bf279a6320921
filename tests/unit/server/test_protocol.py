"""What a client may send outside the bodies of its requests: no more than a server can keep of each."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress

import pytest

from langnorm import ChatLangNorm
from langnorm.testing import ScriptedEngine
from tests.support.servers import LOOPBACK, post, question, running_server

pytestmark = LOOPBACK

LIMIT = 64 * 1024
LARGEST_READ = 256 * 1024  # uvloop's: what comes in one is parsed before it is counted
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
BODY = b'{"messages": [{"role": "user", "content": "Hi."}]}'
WITH_LENGTH = b"content-length: %d\r\n\r\n" % len(BODY) + BODY
ONE = HEAD + WITH_LENGTH
LAST = HEAD + b"connection: close\r\n" + WITH_LENGTH


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Returns the address of a server that says yes to all."""
    chat = ChatLangNorm(engine=ScriptedEngine(["Yes."], is_repeated=True), model="scripted")
    with running_server(chat, max_body_bytes=1000) as address:
        yield address


def connect(url: str) -> socket.socket:
    """Returns a connection to a server."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def talk(url: str, parts: Iterable[bytes]) -> tuple[int, bytes]:
    """Returns how many bytes of these were sent before the connection was ended, and all that came back."""
    num_sent = 0
    with connect(url) as connection:
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
    for _ in range(400 * LIMIT // len(repeated)):
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
        pytest.param([CHUNKED, b"1\r\n{\r\n"], b"200\r\n" + b"x" * 512 + b"\r\n", id="body that nobody reads"),
    ],
)
def test_what_goes_on_and_on_is_ended(url: str, beginning: list[bytes], repeated: bytes) -> None:
    """The connection is, and others are not."""
    num_sent, _ = talk(url, endless(*beginning, repeated=repeated))
    assert num_sent < 200 * LIMIT
    assert post(url, question()).json()["choices"][0]["message"]["content"] == "Yes."


def test_a_head_that_is_too_large_is_told_so(url: str) -> None:
    """Also the second one of a connection, which says so once."""
    too_large = [HEAD + b"x-name: ", *[b"x" * 1000] * (LIMIT // 1000 + 1)]
    for before, statuses in ([], [b"400"]), ([ONE], [b"200", b"400"]):
        with connect(url) as connection:
            received = b""
            for part in before:
                connection.sendall(part)
                received += connection.recv(65536)
            for part in too_large:
                connection.sendall(part)
            while part := connection.recv(65536):
                received += part
        assert re.findall(rb"HTTP/1.1 (\d+)", received) == statuses
        assert b"The head of a request may have 65536 bytes." in received


def test_what_is_allowed_is_read(url: str) -> None:
    """Large heads, bodies in many chunks, and requests that come before the answer to the first."""
    whole = HEAD + b"x-name: " + b"x" * (LIMIT - 500) + b"\r\n" + WITH_LENGTH
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    _, received = talk(url, pieces(whole + CHUNKED + chunks + whole + LAST))
    assert received.count(b"HTTP/1.1 200") == received.count(b"Yes.") == 4


def pieces(data: bytes) -> list[bytes]:
    """Returns data as it may come over a network."""
    return [data[at : at + 7000] for at in range(0, len(data), 7000)]


def test_heads_of_a_whole_read_are_not_counted_twice(url: str) -> None:
    """Many small requests at once have more bytes than one may have."""
    get = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-name: " + b"x" * 1000 + b"\r\n\r\n"
    num_requests = LARGEST_READ // len(get)
    _, received = talk(url, [get * num_requests, LAST])
    assert received.count(b"HTTP/1.1 200") == num_requests + 1

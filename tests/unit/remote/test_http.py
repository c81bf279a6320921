"""What goes wrong between a chat model and its server, and what is done about it: servers of a few lines each."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from langnorm import ChatLangNorm
from langnorm.errors import OptionError, RemoteError
from langnorm.remote.events import EventReader
from langnorm.remote.http import Address, _retries
from langnorm.testing import ScriptedEngine
from tests.support.servers import LOOPBACK, running_server

pytestmark = LOOPBACK

ANSWER = {"model": "m", "choices": [{"index": 0, "message": {"content": "Yes."}, "finish_reason": "stop"}]}
DELTAS = [
    {"model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Ye"}, "finish_reason": None}]},
    {"model": "m", "choices": [{"index": 0, "delta": {"content": "s.\u2028\u0085\r"}, "finish_reason": None}]},
    {"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}}

Reply = tuple[int, dict[str, str], bytes]


class Other(BaseHTTPRequestHandler):
    """Answers as it is told to, and notes what it is asked."""

    replies: list[Reply]
    asked: list[tuple[str, dict[str, str], Any]]

    def do_POST(self) -> None:
        """Takes the next reply; the last one again and again."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        status, headers, content = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def other_server(*replies: Reply) -> Iterator[tuple[str, list[Any]]]:
    """Runs a server of a few replies, and gives its address and what it is asked."""
    asked: list[Any] = []
    handler = type("Handler", (Other,), {"replies": list(replies), "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def whole(status: int = 200, body: Any = ANSWER, **headers: str) -> Reply:
    """Returns a reply of JSON."""
    return status, headers, json.dumps(body).encode()


def streamed(*events: Any, end: str = "data: [DONE]\n\n") -> Reply:
    """Returns a reply of events, which are not escaped."""
    text = "".join(f": ping\n\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
    return 200, {"content-type": "text/event-stream"}, (text + end).encode()


def remote(url: str, **fields: Any) -> ChatLangNorm:
    """Returns a chat model of a server."""
    return ChatLangNorm(engine="remote", base_url=url, **fields)


def in_all_ways(chat: ChatLangNorm) -> list[Callable[[], Any]]:
    """Returns the calls of a chat model, whole and streamed, synchronous and not."""
    import asyncio

    async def astream() -> str:
        return "".join([str(chunk.text) async for chunk in chat.astream("?")])

    return [
        lambda: chat.invoke("?").text,
        lambda: asyncio.run(chat.ainvoke("?")).text,
        lambda: "".join(str(chunk.text) for chunk in chat.stream("?")),
        lambda: asyncio.run(astream()),
    ]


def test_a_server_of_others_is_understood() -> None:
    """One without what only langnorm has; the model's name and the usage are then OpenAI's."""
    with other_server(whole(body={**ANSWER, "usage": USAGE})) as (url, asked):
        reply = remote(url, api_key="right", temperature=0.5).invoke("?", max_tokens=5)
    assert reply.text == "Yes."
    assert reply.response_metadata["model_name"] == "m"
    assert reply.usage_metadata == {
        "input_tokens": 3,
        "output_tokens": 4,
        "total_tokens": 7,
        "output_token_details": {"reasoning": 0},
        "input_token_details": {"cache_read": 2},
    }
    ((path, headers, body),) = asked
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer right"
    assert (body["temperature"], body["max_completion_tokens"], body["n"]) == (0.5, 5, 1)
    assert "model" not in body


def test_a_stream_of_others_is_understood() -> None:
    """Its usage may come after its end; lines end with a line feed alone, whatever a text has in it."""
    with other_server(streamed(*DELTAS, {"choices": [], "usage": USAGE})) as (url, _):
        chunks = list(remote(url, model="mine").stream("?"))
    assert [chunk.text for chunk in chunks] == ["Ye", "s.\u2028\u0085\r", ""]
    assert chunks[-1].usage_metadata
    assert chunks[-1].usage_metadata["total_tokens"] == 7
    assert chunks[-1].response_metadata["model_name"] == "mine"


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """No more often than `max_retries`; a stream until it begins."""
    monkeypatch.setattr("langnorm.remote.http._FIRST_WAIT", 0.01)
    busy = whole(status, {"error": {"message": "busy", "code": "x"}}, **{"retry-after": "0"})
    for number in range(4):
        good = whole() if number < 2 else streamed(*DELTAS)
        with other_server(busy, busy, good) as (url, asked):
            assert in_all_ways(remote(url))[number]().startswith("Yes.")
            assert len(asked) == 3
        with other_server(busy) as (url, asked):
            with pytest.raises(RemoteError, match=f"status {status}: busy") as caught:
                in_all_ways(remote(url, max_retries=1))[number]()
            assert caught.value.status == status
            assert len(asked) == 2


@pytest.mark.parametrize(
    ("retry_after", "attempt", "seconds"),
    [(3.0, 1, 3.0), (0.0, 1, 0.5), (0.5, 4, 4.0), (1e9, 1, 60.0)],
)
def test_waits_grow(retry_after: float, attempt: int, seconds: float) -> None:
    """From half a second to a minute, and are never shorter than the server asks for."""
    outcome: Any = SimpleNamespace(exception=lambda: RemoteError("busy", retry_after=retry_after))
    state: Any = SimpleNamespace(outcome=outcome, attempt_number=attempt)
    assert _retries(2)["wait"](state) == seconds


@pytest.mark.parametrize(
    ("reply", "kind", "match"),
    [
        (whole(400, {"error": {"message": "`n=0`", "code": "invalid_option"}}), OptionError, "`n=0`"),
        (whole(504, {"error": {"message": "too long", "code": "timeout"}}), TimeoutError, "too long"),
        (whole(401, {"error": {"message": "no", "code": "invalid_api_key"}}), RemoteError, "as `api_key`"),
        (whole(500, {"error": {"message": "oops", "code": "internal_error"}}), RemoteError, "status 500: oops"),
        ((502, {}, b"<html>"), RemoteError, "status 502: '<html>'"),
    ],
)
def test_what_does_not_go_away_is_raised_at_once(reply: Reply, kind: type[Exception], match: str) -> None:
    """As langnorm's own error where it is one."""
    with other_server(reply) as (url, asked):
        for run in in_all_ways(remote(url)):
            with pytest.raises(kind, match=match):
                run()
        assert len(asked) == 4


@pytest.mark.parametrize(
    ("replies", "match"),
    [
        ((whole(body={}), streamed({})), "something else than a completion"),
        ((whole(body=[]), streamed([])), "something else than a completion"),
        ((whole(body={"choices": [{}]}), streamed(DELTAS[0], end="")), "something else|broken off"),
        (((200, {}, b"<html>"), (200, {}, b"data: <html>\n\n")), "Is it a server of a model"),
        (((200, {"content-length": "100"}, b"{}"), streamed(DELTAS[0])), "broken off its answer"),
        ((whole(body=5), streamed({"error": {"message": "oops", "code": "x"}})), "something else|an error: oops"),
    ],
)
def test_what_is_no_answer_is_an_error(replies: tuple[Reply, Reply], match: str) -> None:
    """Whatever a server sends, or when it breaks off."""
    for number in range(4):
        with other_server(replies[number // 2]) as (url, _), pytest.raises(RemoteError, match=match):
            in_all_ways(remote(url))[number]()


def test_a_server_that_is_not_there() -> None:
    """The error says how to start one."""
    for run in in_all_ways(remote("http://127.0.0.1:1", max_retries=0)):
        with pytest.raises(RemoteError, match="cannot be reached.*langnorm serve"):
            run()


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the time of the call and a margin for it to say so itself."""
    monkeypatch.setattr("langnorm.remote.http._MARGIN_SECONDS", 0.1)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for run in in_all_ways(remote(url, timeout=0.1)):
            with pytest.raises(TimeoutError, match="Raise `timeout`"):
                run()


def test_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is taken where none is given."""
    monkeypatch.setenv("LANGNORM_API_KEY", "from there")
    with other_server(whole()) as (url, asked):
        remote(url).invoke("?")
    assert asked[0][1]["authorization"] == "Bearer from there"


@pytest.mark.parametrize("key", ["hidden\n", "hidden\x00", "hídden", " hidden"])
def test_a_key_that_cannot_be_sent_is_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was read from a file, with the end of its line; nor is that of the environment."""
    with other_server(whole()) as (url, asked):
        for run in in_all_ways(remote(url, api_key=key)):
            with pytest.raises(OptionError, match="`api_key` or LANGNORM_API_KEY, is not allowed") as caught:
                run()
            assert key.strip() not in str(caught.value)
        monkeypatch.setenv("LANGNORM_API_KEY", key.replace("\x00", "\n"))
        with pytest.raises(OptionError, match="is not allowed"):
            remote(url).invoke("?")
    assert not asked


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"engine": "remote"}, "needs `base_url`"),
        ({"engine": "remote", "base_url": 5}, "`base_url` is not allowed"),
        ({"engine": "remote", "base_url": "localhost:8000"}, "`base_url` is not allowed"),
        ({"engine": "remote", "base_url": "ftp://x"}, "`base_url` is not allowed"),
        ({"engine": "remote", "base_url": "http://x?key=1"}, "`base_url` is not allowed"),
        ({"engine": "remote", "base_url": "http://x:99999"}, "`base_url` is not allowed"),
        ({"engine": "remote", "base_url": "http://me:secret@x"}, "Give the key as `api_key`"),
        (
            {"engine": "remote", "base_url": "http://x", "model_kwargs": {"dtype": "float32"}},
            "here a server loads it",
        ),
        ({"engine": "remote", "base_url": "http://x", "engine_kwargs": {"chunk": 1}}, "here a server loads it"),
        ({"base_url": "http://x"}, 'Add `engine="remote"`'),
        ({"base_url": "http://x", "engine": ScriptedEngine(["x"])}, 'Add `engine="remote"`'),
        ({"engine": "remot"}, "Did you mean `remote`"),
    ],
)
def test_addresses_are_checked(fields: dict[str, Any], match: str) -> None:
    """When the chat model is made; no error shows a password."""
    with pytest.raises(OptionError, match=match) as caught:
        ChatLangNorm(**fields)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://x", "http://x/", "http://x/v1", "http://x/v1/"])
def test_addresses_have_one_form(url: str) -> None:
    """With `/v1` at the end, as OpenAI's clients have it; two servers share no cached answer."""
    chat = remote(url)
    assert chat.base_url == "http://x/v1"
    assert chat.model == "auto"
    assert chat._identifying_params != remote("http://y")._identifying_params


@pytest.mark.parametrize(
    ("url", "is_verified"), [("https://x/v1", True), ("HTTPS://x/v1", True), ("HTTP://x/v1", False)]
)
def test_certificates_are_verified(url: str, is_verified: bool) -> None:
    """However the scheme is written: else a key would go to anybody who answers in the place of the server."""
    assert bool(Address(url)._verify()) == is_verified


def test_events_come_in_any_parts() -> None:
    """Byte by byte as well as all at once."""
    data = 'data: {"a": "é\u2028"}\n\n: ping\n\ndata:{"b": 1}\r\n\r\ndata: [DONE]\n\n'.encode()
    for size in (1, 2, 7, len(data)):
        reader = EventReader()
        events = [event for i in range(0, len(data), size) for event in reader.feed(data[i : i + size])]
        assert events == [{"a": "é\u2028"}, {"b": 1}]
        assert reader.is_ended


def test_a_long_event_is_read_in_time() -> None:
    """In a fraction of a second, where joining it anew at each of its parts took ten."""
    event = b'data: "' + b"x" * 2**24 + b'"\n\n'
    reader, start = EventReader(), time.monotonic()
    found = [each for at in range(0, len(event), 2**14) for each in reader.feed(event[at : at + 2**14])]
    assert [len(each) for each in found] == [2**24]
    assert time.monotonic() - start < 3


def test_closing_a_stream_ends_it_on_the_server() -> None:
    """At once."""
    from tests.unit.server.test_server import SlowEngine, wait_until

    engine = SlowEngine()
    with running_server(ChatLangNorm(engine=engine, model="scripted")) as url:
        stream = remote(url).stream("?")
        assert next(stream).text == "word "
        stream.close()  # type: ignore[attr-defined]
        wait_until(lambda: engine.num_left == 1)


WITHOUT_TORCH = """
import asyncio, sys
from langnorm import ChatLangNorm, NormRetry, NormSelector, NormTrace
from langnorm.middleware import NormRetryMiddleware
from langchain.agents import create_agent

def weather(city: str) -> str:
    '''Get the weather in a city.'''
    return "sunny"

chat = ChatLangNorm(engine="remote", base_url=sys.argv[1], temperature=0.5)
trace = NormTrace.from_message(chat.invoke("?", recursion={"max_extra": 1}, norms="tokens"))
assert trace.token_norms
assert list(chat.stream("?")) and asyncio.run(chat.ainvoke("?")).text == "Yes."
assert len(chat.batch(["?", "?"])) == 2
assert chat.get_num_tokens("?")
NormSelector(chat, n=2).invoke("?")
NormRetry(chat, max_attempts=2).invoke("?")
create_agent(chat, [weather], middleware=[NormRetryMiddleware()]).invoke({"messages": "?"})
loaded = {"torch", "transformers", "tokenizers"} & set(sys.modules)
assert not loaded, loaded
"""


def test_no_torch_is_imported() -> None:
    """By calls of all kinds, selection, retries and agents, in a process of their own."""
    with running_server(ChatLangNorm(engine=ScriptedEngine(["Yes."], is_repeated=True), model="scripted")) as url:
        command = [sys.executable, "-c", WITHOUT_TORCH, url]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr

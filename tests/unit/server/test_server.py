"""A server without weights: who is let in, what is refused, and how it ends. Real requests on the loopback address."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import httpx
import pytest

from langnorm import ChatLangNorm
from langnorm.engines.requests import Delta, Request, Response
from langnorm.errors import MemoryLimitError, OptionError
from langnorm.server.app import model_name
from langnorm.server.options import ServerOptions
from langnorm.server.running import Server, listen, warn_if_open
from langnorm.testing import ScriptedEngine
from tests.support.servers import LOOPBACK, post, question, running_server

pytestmark = LOOPBACK

EVENT = "data: "


class SlowEngine(ScriptedEngine):
    """Says one token after the other until somebody lets it end, and notes who has left."""

    def __init__(self) -> None:
        super().__init__(["x"], is_repeated=True)
        self.num_begun = 0
        self.num_left = 0
        self.may_end = threading.Event()

    async def astream(self, request: Request) -> AsyncGenerator[Delta]:
        """Yields pieces for ever, or the scripted answer."""
        self.num_begun += 1
        try:
            while not self.may_end.is_set():
                yield Delta(((0, "word "),))
                await asyncio.sleep(0.01)
        except (asyncio.CancelledError, GeneratorExit):
            self.num_left += 1
            raise
        async for delta in super().astream(request):
            yield delta

    async def agenerate(self, requests: Sequence[Request]) -> list[Response]:
        """Waits before it answers."""
        self.num_begun += 1
        try:
            while not self.may_end.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.num_left += 1
            raise
        return await super().agenerate(requests)


def chat_of(engine: ScriptedEngine) -> ChatLangNorm:
    """Returns a chat model of an engine."""
    return ChatLangNorm(engine=engine, model="scripted")


def events(lines: Iterator[str]) -> list[str]:
    """Returns what the events of a stream say, comments left out."""
    return [line.removeprefix(EVENT) for line in lines if line.startswith(EVENT)]


def wait_until(condition: Any) -> None:
    """Waits until a condition holds, and fails after ten seconds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of yes."""
    with running_server(chat_of(ScriptedEngine(["Yes."], is_repeated=True)), max_tokens=50, max_samples=4) as url:
        yield url


@pytest.mark.parametrize(
    ("fields", "status", "param", "match"),
    [
        ({"temperature": -1}, 400, "temperature", "Use 0 (greedy) or above"),
        ({"model": "gpt"}, 404, "model", "Use `scripted`"),
        ({"max_tokens": 51}, 400, "max_tokens", "this server allows, which is 50"),
        ({"n": 5}, 400, "n", "this server allows, which is 4"),
        ({"langnorm": {"selection": {"n": 5}}}, 400, "selection.n", "which is 4"),
        ({"langnorm": {"recursion": {"max_extra": 10**9}}}, 400, "recursion.max_extra", "which is 32"),
        ({"langnorm": {"timeout": 1e6}}, 400, "timeout", "which is 600"),
        ({"stop": ["x"] * 33}, 400, None, "Give fewer"),
        ({"tools": [{"type": "x"}]}, 400, None, "cannot be a tool"),
        ({"tool_choice": "f"}, 400, "tool_choice", "names no tool of this call"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, None, "reads text only"),
        ({"messages": [{"role": "user", "content": [{"type": []}]}]}, 400, None, "reads text only"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, 400, None, "leaves no room for an answer"),
        ({"langnorm": {"layers": [99]}}, 400, None, "outside this model"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_is_refused(
    url: str, stream: bool, fields: dict[str, Any], status: int, param: str | None, match: str
) -> None:
    """In OpenAI's form and with langnorm's words, whole or streamed; what is refused is not to be asked again."""
    response = post(url, question(**{"stream": stream, **fields}))
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert error["type"] == "invalid_request_error"
    assert match in error["message"]
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b'{"a": NaN}', {}, 400, "invalid_json"),
        (b"[" * 10_000, {}, 400, "invalid_json"),
        (b'{"messages": "\\ud83d"}', {}, 400, "invalid_json"),
        (b"\xff", {}, 400, "invalid_json"),
        (b"[]", {}, 400, "invalid_option"),
        (b"{}", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
        (b"x" * 1001, {}, 413, "request_too_large"),
    ],
)
def test_bodies_that_are_none(content: bytes, headers: dict[str, str], status: int, code: str) -> None:
    """Whatever is sent is answered with an error in OpenAI's form, and the next request with its answer."""
    with running_server(chat_of(ScriptedEngine(["Yes."], is_repeated=True)), max_body_bytes=10_001) as url:
        content = content * 10 if code == "request_too_large" else content
        with httpx.Client(trust_env=False, headers={"content-type": "application/json", **headers}) as client:
            for body in (content, iter([content])):  # with its length, and in parts
                response = client.post(f"{url}/chat/completions", content=body)
                assert (response.status_code, response.json()["error"]["code"]) == (status, code)
            assert post(url, question()).json()["choices"][0]["message"]["content"] == "Yes."


def test_addresses_without_anything(url: str) -> None:
    """And other methods of those with something."""
    with httpx.Client(trust_env=False) as client:
        for response in (client.get(f"{url}/nothing"), client.get(f"{url}/chat/completions")):
            assert response.json()["error"]["code"] == "not_found"
            assert response.status_code in (404, 405)


def test_models_health_metrics_and_tokens(url: str) -> None:
    """What stands beside the completions."""
    assert post(url, question()).status_code == 200
    root = url.removesuffix("/v1")
    with httpx.Client(trust_env=False) as client:
        (model,) = client.get(f"{url}/models").json()["data"]
        assert (model["id"], model["max_model_len"], model["langnorm"]["engine"]) == (
            "scripted",
            2048,
            "ScriptedEngine",
        )
        assert client.get(f"{url}/models/scripted").json() == model
        assert client.get(f"{url}/models/other").json()["error"]["code"] == "model_not_found"
        assert client.get(f"{root}/health").json() == {"status": "ok"}
        metrics = client.get(f"{root}/metrics").text
        assert 'langnorm_requests_total{status="200"}' in metrics
        assert "langnorm_generated_tokens_total" in metrics
        counted = client.post(f"{root}/tokenize", json=question()).json()
        assert counted["count"] == chat_of(ScriptedEngine(["x"])).get_num_tokens("Calculate 47 + 385.") + 8
        text = client.post(f"{root}/tokenize", json={"prompt": "Calculate"}).json()
        assert text["count"] == len(text["tokens"])
        assert client.post(f"{root}/tokenize", json={"promt": "x"}).json()["error"]["code"] == "invalid_option"
        assert client.post(f"{root}/tokenize", json=[]).status_code == 400
        for own in ({"norms": "off"}, {"enable_thinking": "no"}, "x"):
            refused = client.post(f"{root}/tokenize", json=question() | {"langnorm": own})
            assert refused.json()["error"]["code"] == "invalid_option"


def test_only_the_key_lets_in() -> None:
    """Everywhere but for /health; hosts of any name may then be asked for."""
    with (
        running_server(chat_of(ScriptedEngine(["Yes."], is_repeated=True)), api_key="right") as url,
        httpx.Client(trust_env=False) as client,
    ):
        for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic right"}, {"authorization": "é"}):
            response = client.get(f"{url}/models", headers={k: v.encode() for k, v in header.items()})
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
            assert "right" not in response.text
        good = {"authorization": "Bearer right", "host": "models.example"}
        assert client.get(f"{url}/models", headers=good).status_code == 200
        assert client.get(f"{url.removesuffix('/v1')}/health").status_code == 200


def test_other_names_of_this_machine_are_refused_without_a_key(url: str) -> None:
    """A page in a browser could come by one that leads here."""
    with httpx.Client(trust_env=False) as client:
        for name in ("evil.example", "evil.example:80", "", "127.0.0.1.evil.example:80"):
            assert client.get(f"{url}/models", headers={"host": name}).status_code in (400, 403)
        for name in ("localhost", "Localhost:80", "[::1]", "[::1]:8000", "127.0.0.1", "[0:0:0:0:0:0:0:1]:80"):
            assert client.get(f"{url}/models", headers={"host": name}).status_code == 200


@pytest.mark.allow_hosts(["127.0.0.2"])
def test_a_server_answers_to_the_address_that_it_listens_at() -> None:
    """Also to a loopback address that is not the usual one."""
    with running_server(chat_of(ScriptedEngine(["Yes."])), host="127.0.0.2") as url:
        assert post(url, question()).status_code == 200


def test_too_many_are_told_to_come_again() -> None:
    """Those that run are not touched by it, and when one ends, there is room."""
    engine = SlowEngine()
    with running_server(chat_of(engine), max_requests=1) as url:
        first = threading.Thread(target=post, args=(url, question()))
        first.start()
        wait_until(lambda: engine.num_begun == 1)
        response = post(url, question())
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        assert response.headers["x-should-retry"] == "true"
        engine.may_end.set()
        first.join()
        assert post(url, question()).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_generation(stream: bool) -> None:
    """At once, and that of nobody else."""
    engine = SlowEngine()
    with running_server(chat_of(engine)) as url:
        body = json.dumps(question(stream=stream)).encode()
        port = int(url.split(":")[2].split("/")[0])
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection(("127.0.0.1", port)) as leaving:
            leaving.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            other = threading.Thread(target=post, args=(url, question()))
            other.start()
            wait_until(lambda: engine.num_begun == 2)
            if stream:
                assert leaving.recv(10_000).startswith(b"HTTP/1.1 200")
        wait_until(lambda: engine.num_left == 1)
        assert other.is_alive()
        engine.may_end.set()
        other.join()
        metrics = httpx.get(f"{url.removesuffix('/v1')}/metrics", trust_env=False).text
        assert 'status="499"} 1.0' in metrics
        assert "langnorm_requests_running 0.0" in metrics


@pytest.mark.parametrize("path", ["/tokenize", "/v1/chat/completions"])
def test_a_client_that_leaves_before_it_has_asked_is_no_error(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of the server, whose log says nothing of it."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    with running_server(chat_of(ScriptedEngine(["Yes."]))) as url:
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 0)) as connection:
            connection.sendall(head.encode() + b"{")
            time.sleep(0.2)
        assert post(url, question()).status_code == 200
    assert not caplog.records


def test_a_stream_that_runs_when_the_server_stops_is_ended_cleanly() -> None:
    """Its last event says why, and its connection is closed as HTTP has it; whole answers get a status for it."""
    engine = SlowEngine()
    told: dict[str, Any] = {}

    def stream() -> None:
        with (
            httpx.Client(trust_env=False, timeout=60) as client,
            client.stream("POST", f"{url}/chat/completions", json=question(stream=True)) as response,
        ):
            told["stream"] = events(response.iter_lines())

    def whole() -> None:
        told["whole"] = post(url, question())

    with running_server(chat_of(engine), grace=0.3) as url:
        threads = [threading.Thread(target=each) for each in (stream, whole)]
        for thread in threads:
            thread.start()
        wait_until(lambda: engine.num_begun == 2)
    for thread in threads:
        thread.join()
    assert json.loads(told["stream"][-1])["error"]["code"] == "server_stopping"
    assert json.loads(told["stream"][0])["choices"][0]["delta"]["role"] == "assistant"
    assert (told["whole"].status_code, told["whole"].json()["error"]["code"]) == (503, "server_stopping")
    assert engine.num_left == 2


def test_a_silent_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """By comments, which clients pass over."""
    monkeypatch.setattr("langnorm.server.streams._PING_SECONDS", 0.05)

    class Silent(SlowEngine):
        async def astream(self, request: Request) -> AsyncGenerator[Delta]:
            while not self.may_end.is_set():
                await asyncio.sleep(0.01)
            async for delta in super().astream(request):
                yield delta

    engine = Silent()
    with running_server(chat_of(engine)) as url:
        threading.Timer(0.5, engine.may_end.set).start()
        text = post(url, question(stream=True)).text
    assert text.startswith(": still at work\n\n")
    assert text.endswith("data: [DONE]\n\n")


def test_what_runs_may_end_when_the_server_stops() -> None:
    """Within the grace; the server ends as soon as nothing runs."""
    engine = SlowEngine()
    told: list[httpx.Response] = []
    with running_server(chat_of(engine), grace=60) as url:
        thread = threading.Thread(target=lambda: told.append(post(url, question())))
        thread.start()
        wait_until(lambda: engine.num_begun == 1)
        threading.Timer(0.3, engine.may_end.set).start()
    thread.join()
    assert told[0].status_code == 200


def test_errors_on_the_way_are_events() -> None:
    """What has begun cannot have another status; nothing is told of an error that nobody raised on purpose."""

    class Failing(ScriptedEngine):
        def __init__(self, error: Exception) -> None:
            super().__init__(["x"], is_repeated=True)
            self.error = error

        async def astream(self, request: Request) -> AsyncGenerator[Delta]:  # noqa: ARG002
            yield Delta(((0, "word "),))
            raise self.error

    for error, code in ((MemoryLimitError("too much"), "out_of_memory"), (ValueError("secret"), "internal_error")):
        with running_server(chat_of(Failing(error))) as url:
            response = post(url, question(stream=True))
            assert response.status_code == 200
            last = json.loads(events(iter(response.text.splitlines()))[-1])
            assert last["error"]["code"] == code
            assert "secret" not in response.text


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_one_request_touches_no_other(stream: bool) -> None:
    """The next one is answered."""
    engine = ScriptedEngine([ValueError("secret"), "Yes."])
    with running_server(chat_of(engine)) as url:
        response = post(url, question(stream=stream))
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
        assert "secret" not in response.text
        assert post(url, question()).json()["choices"][0]["message"]["content"] == "Yes."


def test_a_time_limit_holds() -> None:
    """That of the server where a request has none, and its own where it has."""
    engine = ScriptedEngine([TimeoutError("The answer took longer than `timeout=1` seconds.")], is_repeated=True)
    with running_server(chat_of(engine), timeout=7) as url:
        response = post(url, question())
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        post(url, question(langnorm={"timeout": 3}))
    assert [request.timeout for request in engine.requests] == [7, 3]


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"port": 70_000}, "`port=70000`"),
        ({"host": ""}, "`host="),
        ({"api_key": ""}, "`api_key` is not allowed"),
        ({"api_key": "schlüssel"}, "`api_key` is not allowed"),
        ({"api_key": "key "}, "`api_key` is not allowed"),
        ({"api_key": " "}, "`api_key` is not allowed"),
        ({"max_requests": 0}, "`max_requests=0`"),
        ({"max_tokens": 0}, "`max_tokens=0`"),
        ({"timeout": 0}, "`timeout=0`"),
        ({"grace": -1}, "`grace=-1`"),
        ({"name": 5}, "`name=5`"),
    ],
)
def test_options_are_checked(fields: dict[str, Any], match: str) -> None:
    """The error does not show a key."""
    with pytest.raises(OptionError, match=match) as caught:
        ServerOptions(**fields)
    assert "schlüssel" not in str(caught.value)


def test_a_key_is_not_shown() -> None:
    """Not by the options' own text."""
    assert "secret" not in repr(ServerOptions(api_key="secret"))


def test_a_port_that_is_taken_is_an_error() -> None:
    """That says so."""
    with listen(ServerOptions(port=0)) as listener, pytest.raises(OptionError, match="cannot listen at `port="):
        listen(ServerOptions(port=listener.getsockname()[1]))


@pytest.mark.parametrize(
    ("fields", "is_warned"),
    [({"host": "0.0.0.0"}, True), ({"host": "0.0.0.0", "api_key": "k"}, False), ({}, False), ({"host": "::1"}, False)],
)
def test_an_open_server_is_warned_of(fields: dict[str, Any], is_warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    """One that others reach, and that has no key."""
    warn_if_open(ServerOptions(**fields))
    assert ("Set a key" in caplog.text) == is_warned


def test_names_and_addresses(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of a file or a folder is called by its own name, not by where it lies."""
    engine = ScriptedEngine(["x"])
    chat = ChatLangNorm(engine=engine, model=str(tmp_path / "some.gguf"))
    server = Server(chat, ServerOptions(port=0, host="127.0.0.1"))
    assert server.model_name == "some.gguf"
    assert Server(chat, ServerOptions(name="mine")).model_name == "mine"
    (tmp_path / "some" / "other").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "some")
    for model, name in ((".", "some"), ("./", "some"), ("other/..", "some"), ("other", "other"), ("a/b", "a/b")):
        assert model_name(ChatLangNorm(engine=engine, model=model), ServerOptions()) == name
    assert ServerOptions(host="localhost").is_local
    assert not ServerOptions(host="models.example").is_local

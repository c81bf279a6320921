"""langnorm's plugin of vLLM's server: what it makes of the server's arguments, and of requests, without an engine."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import BaseModel

from langnorm.errors import ModelError

if TYPE_CHECKING:
    from fastapi import FastAPI

fastapi = pytest.importorskip("fastapi", reason="it comes with vLLM: `make test-vllm` installs both")

KEY = "right"


def test_a_server_whose_engine_knows_nothing_of_langnorm_does_not_start() -> None:
    """The error says which argument is missing."""
    from langnorm_vllm.endpoint import Endpoint

    client = SimpleNamespace(vllm_config=SimpleNamespace(additional_config={}))
    with pytest.raises(ModelError, match="Start the server with --additional-config"):
        asyncio.run(Endpoint().init_state(client, None, Namespace()))


def arguments(**given: Any) -> Namespace:
    """Returns arguments of a server, most of them left out."""
    names = (
        "tokenizer",
        "revision",
        "code_revision",
        "trust_remote_code",
        "hf_token",
        "chat_template",
        "api_key",
        "host",
    )
    return Namespace(**{**dict.fromkeys(names), "model": "some/model", **given})


def test_the_files_of_a_model_are_read_as_vllm_reads_them(tmp_path) -> None:
    """A chat template is given as a path or as itself; another tokenizer is refused."""
    from langnorm_vllm.endpoint import model_kwargs

    path = tmp_path / "chat.jinja"
    path.write_text("{{ messages }}")
    given = arguments(chat_template=str(path), revision="v2", hf_token="secret", trust_remote_code=False)
    assert model_kwargs(given) == {"chat_template": "{{ messages }}", "revision": "v2", "token": "secret"}
    assert model_kwargs(arguments(chat_template="{{ 1 }}", tokenizer="some/model")) == {"chat_template": "{{ 1 }}"}
    with pytest.raises(ModelError, match="`--tokenizer` names another one"):
        model_kwargs(arguments(tokenizer="another/model"))


def test_a_server_with_a_key_may_have_any_name(monkeypatch) -> None:
    """As behind a proxy on the same machine."""
    from langnorm_vllm.endpoint import server_options

    assert server_options(arguments(host="127.0.0.1"), "m").is_local
    assert not server_options(arguments(host="127.0.0.1", api_key=[KEY]), "m").is_local
    assert not server_options(arguments(), "m").is_local
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    assert not server_options(arguments(host="127.0.0.1"), "m").is_local


class Question(BaseModel):
    """The body of a request."""

    text: str


def app_with_plugin(monkeypatch) -> tuple[FastAPI, dict[str, Any]]:
    """Returns an application with vLLM's routes and the plugin, and its description without."""
    from vllm.plugins.endpoint_plugins.interface import attach_endpoint_plugins

    from langnorm_vllm.endpoint import Endpoint

    app = fastapi.FastAPI()

    @app.post("/v1/chat/completions", responses={404: {"description": "no such model"}})
    async def complete(question: Question) -> str:
        return question.text

    @app.get("/v1/models")
    async def models() -> None:
        pass

    described = app.openapi()
    monkeypatch.setattr("vllm.plugins.load_endpoint_plugins", lambda _: [Endpoint()])
    attach_endpoint_plugins(app, ("generate",))
    return app, described


def test_the_description_of_the_server_stays(monkeypatch) -> None:
    """Of the paths, the bodies and the answers."""
    app, described = app_with_plugin(monkeypatch)
    assert app.openapi() == described


async def test_what_vllm_refuses_is_refused_by_it(monkeypatch) -> None:
    """Nested too deeply; and a client that leaves in the midst of its request leaves no error behind."""
    app, _ = app_with_plugin(monkeypatch)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        whole = await client.post("/v1/chat/completions", json={"text": "hello"})
        assert whole.json() == "hello"
        deep = b'{"text": "hello", "langnorm": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        headers = {"content-type": "application/json"}
        assert (await client.post("/v1/chat/completions", content=deep, headers=headers)).status_code == 400
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": []}
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert not sent


@pytest.mark.parametrize("name", ["one", "other"])
async def test_a_body_stays_as_large_as_it_was(monkeypatch, name) -> None:
    """By whichever of its names the model is asked for: langnorm's limit is that of what was sent."""
    from langnorm_vllm.endpoint import Endpoint

    bodies: list[bytes] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        bodies.append((await receive())["body"])
        await fastapi.Response()(scope, receive, send)

    app, _ = app_with_plugin(monkeypatch)
    (endpoint,) = app.state.endpoint_plugins
    assert isinstance(endpoint, Endpoint)
    endpoint._app, endpoint._names = answer, ["one", "other"]
    sent = json.dumps({"model": name, "langnorm": {}, "messages": "数" * 1000}, ensure_ascii=False).encode()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        await client.post("/v1/chat/completions", content=sent)
    assert json.loads(bodies[0])["model"] == "one"
    assert len(bodies[0]) <= len(sent)

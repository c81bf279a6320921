"""langnorm's answers in vLLM's own server, as a plugin of the group `vllm.endpoint_plugins`.

A request for a completion that has a field `langnorm` is answered as `langnorm serve` answers it, by the model that
vLLM runs; all others are vLLM's. vLLM loads the plugin where `VLLM_PLUGINS` names it.
"""

from __future__ import annotations

import asyncio
import json
import os
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from langnorm.chat_models import ChatLangNorm
from langnorm.engines.vllm.core import VllmCore
from langnorm.engines.vllm.loading import engine_over
from langnorm.engines.vllm.starting import is_ours
from langnorm.errors import ModelError
from langnorm.server.app import build_app
from langnorm.server.options import ServerOptions
from langnorm.wire.names import FIELD
from langnorm_vllm.client_engine import ClientEngine

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.datastructures import State
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from vllm.engine.protocol import EngineClient

_COMPLETIONS, _TOKENS, _MODELS = "/v1/chat/completions", "/tokenize", "/v1/models"
_MODEL_ARGUMENTS = {
    "revision": "revision",
    "code_revision": "code_revision",
    "trust_remote_code": "trust_remote_code",
    "hf_token": "token",
}
"""Arguments of vLLM, and what langnorm calls them."""

_MOST_REQUESTS = 4096  # at once: vLLM has a queue of its own


class Endpoint:
    """The plugin, of one server."""

    name = "langnorm"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._names: list[str] = []
        self._about: dict[str, Any] = {}

    def attach_router(self, app: FastAPI) -> None:
        """Put routes before vLLM's, which they hand on to what is not for langnorm."""
        answers = {_COMPLETIONS: self._answer, _TOKENS: self._answer, _MODELS: self._list_models}
        for own in list(app.routes):
            if isinstance(own, APIRoute) and own.path in answers:
                app.router.routes.append(_Route(own, answers[own.path]))

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:  # noqa: ARG002
        """Look at the engine, and try it out, before the server takes requests.

        Raises:
            ModelError: The engine was started without langnorm, or norms do not come back.
        """
        if engine_client is None:
            return
        if not is_ours(engine_client.vllm_config):
            msg = (
                "`VLLM_PLUGINS` names langnorm, and the engine runs without it. Start the server with "
                '--additional-config \'{"langnorm": {}}\', or \'{"langnorm": {"interventions": true}}\'.'
            )
            raise ModelError(msg)
        loop = asyncio.get_running_loop()
        self._names = list(args.served_model_name or [args.model])
        self._app = await asyncio.to_thread(_build, ClientEngine(engine_client, loop), args, self._names[0])
        self._about = await _get_json(self._app, _MODELS)

    async def _answer(self, own: APIRoute, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with the field `langnorm`, and let vLLM answer others."""
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        asked = _read(body)
        if self._app is None or FIELD not in asked:
            await own.handle(scope, _again(body, receive), send)
            return
        if asked.get("model") in self._names[1:]:  # further names; in bytes, the body stays about as large as it was
            body = json.dumps(asked | {"model": self._names[0]}, ensure_ascii=False).encode(errors="surrogatepass")
        await self._app(dict(scope), _again(body, receive), send)

    async def _list_models(self, own: APIRoute, scope: Scope, receive: Receive, send: Send) -> None:
        """Add to vLLM's list what `langnorm serve` says of its model."""
        listed = await own.endpoint(Request(scope, receive))
        models = json.loads(listed.body)
        for model in models["data"]:
            if model["id"] in self._names:
                model[FIELD] = self._about["data"][0][FIELD]
        await JSONResponse(models)(scope, receive, send)


class _Route(APIRoute):  # type: ignore[misc]
    """A route in the place of one of vLLM's, which it may hand a request on to, and whose description it has."""

    def __init__(self, own: APIRoute, answer: Any) -> None:
        self.__dict__.update(vars(own))
        self._own, self._answer = own, answer

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._answer(self._own, scope, receive, send)


def _build(engine: ClientEngine, args: Namespace, name: str) -> ASGIApp:
    """Return langnorm's own application over the engine of a server."""
    chat = ChatLangNorm(model=name, engine=engine_over(VllmCore(engine), args.model, model_kwargs(args)))
    return build_app(chat, server_options(args, name))


def model_kwargs(args: Namespace) -> dict[str, Any]:
    """Return how langnorm reads the files of the model of a server, which has these arguments.

    Raises:
        ModelError: Its tokenizer is that of another model.
    """
    from vllm.renderers.chat_utils import load_chat_template

    if args.tokenizer not in (None, args.model):
        msg = "langnorm takes the tokenizer of the model, and `--tokenizer` names another one. Leave it out."
        raise ModelError(msg)
    found = {ours: getattr(args, theirs) for theirs, ours in _MODEL_ARGUMENTS.items()}
    found["chat_template"] = load_chat_template(args.chat_template)  # a path, or the template itself
    return {name: value for name, value in found.items() if value}


def server_options(args: Namespace, name: str) -> ServerOptions:
    """Return the options of langnorm's own application in a server with these arguments, whose model has this name."""
    # The key is checked by vLLM, before any route: where there is one, the server may have any name.
    has_key = any([*(args.api_key or ()), os.environ.get("VLLM_API_KEY")])
    host = "0.0.0.0" if has_key or not args.host else args.host
    return ServerOptions(name=name, host=host, max_requests=_MOST_REQUESTS)


def _read(body: bytes) -> dict[str, Any]:
    """Return the fields of a body that has langnorm's; nothing of others, whose faults vLLM finds itself."""
    if f'"{FIELD}"'.encode() not in body:
        return {}
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return asked if isinstance(asked, dict) else {}


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that has been read, and then whatever comes."""
    is_new = True

    async def give() -> Message:
        nonlocal is_new
        if not is_new:
            return await receive()
        is_new = False
        return {"type": "http.request", "body": body, "more_body": False}

    return give


async def _get_json(app: ASGIApp, path: str) -> dict[str, Any]:
    """Return what an application answers to a request for a path."""
    parts: list[bytes] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        parts.append(message.get("body", b""))

    headers = [(b"host", b"localhost")]
    await app({"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b""}, receive, send)
    found: dict[str, Any] = json.loads(b"".join(parts))
    return found

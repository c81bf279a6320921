"""The routes of a server, as an ASGI application."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from langnorm import __version__
from langnorm.chat.settings import check_names, check_options
from langnorm.chat_models import ChatLangNorm
from langnorm.checks import brief, refuse
from langnorm.engines.base import ABILITIES
from langnorm.errors import OptionError
from langnorm.files import own_name
from langnorm.server.bodies import read_json
from langnorm.server.completions import Completions, check_model
from langnorm.server.gate import Gate
from langnorm.server.guard import JSON, Guard
from langnorm.server.metrics import Metrics
from langnorm.server.options import ServerOptions
from langnorm.wire.conversations import read_messages
from langnorm.wire.names import COUNT_OPTIONS, FIELD


def build_app(chat: ChatLangNorm, server: ServerOptions, gate: Gate | None = None) -> ASGIApp:
    """Return the application that serves a chat model, whose weights are loaded.

    Args:
        chat: The chat model. What a request does not say of a call, its fields say.
        server: The options of the server.
        gate: Lets requests in; by default one that never stops.
    """
    gate = gate or Gate(server.max_requests)
    engine, name = chat.loaded_engine(), model_name(chat, server)
    metrics = Metrics(gate, engine)
    model = {
        "id": name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "langnorm",
        "max_model_len": engine.context_length,
        FIELD: {
            "version": __version__,
            "engine": engine.kind,
            "num_layers": engine.num_layers,
            "abilities": sorted(getattr(engine, "abilities", ABILITIES)),
            "is_sampling": chat.is_sampling(),
        },
    }

    async def models(_: Request) -> Response:
        return JSON({"object": "list", "data": [model]})

    async def one_model(request: Request) -> Response:
        check_model(request.path_params["model"], name)
        return JSON(model)

    async def health(_: Request) -> Response:
        return JSON({"status": "ok"})

    async def show_metrics(_: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    async def tokenize(request: Request) -> Response:
        body = await read_json(request, server.max_body_bytes)
        with gate.admit():
            return JSON(await asyncio.to_thread(_count_tokens, chat, body) | {"max_model_len": engine.context_length})

    routes = [
        Route("/v1/chat/completions", Completions(chat, name, server, gate, metrics), methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{model:path}", one_model),
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/health", health),
        Route("/metrics", show_metrics),
    ]
    return Guard(Router(routes), server)


def model_name(chat: ChatLangNorm, server: ServerOptions) -> str:
    """Return what the served model is called: of a file or a folder on this machine, no more than its own name."""
    if server.name:
        return server.name
    path = Path(chat.model)
    return own_name(path) if path.is_absolute() or path.exists() else chat.model


def _count_tokens(chat: ChatLangNorm, body: Any) -> dict[str, Any]:
    """Return the tokens of a text, or their number in a conversation with its tools."""
    if not isinstance(body, dict):
        msg = f"The body is `{brief(body)}`. Give a JSON object with `prompt` or `messages`."
        raise OptionError(msg)
    check_names(body, ("model", "prompt", "messages", "tools", FIELD), "This request")
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        ids = chat.get_token_ids(prompt)
        return {"count": len(ids), "tokens": ids}
    own = body.get(FIELD) or {}
    if not isinstance(own, dict):
        refuse(FIELD, own, 'an object of options, such as {"enable_thinking": false}')
    check_names(own, COUNT_OPTIONS, f"`{FIELD}`")
    chat = chat.model_copy(update=check_options(own, "This request"))
    return {"count": chat.get_num_tokens_from_messages(read_messages(body.get("messages")), body.get("tools"))}

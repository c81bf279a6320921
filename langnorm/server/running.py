"""Runs a server until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from typing import Any

import uvicorn

from langnorm.chat_models import ChatLangNorm
from langnorm.credentials import KEY_VARIABLE
from langnorm.errors import OptionError
from langnorm.server.app import build_app, model_name
from langnorm.server.gate import Gate
from langnorm.server.options import ServerOptions

_BACKLOG = 2048
_SECONDS_TO_END = 2  # for streams to say that they end

_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Serves a chat model. When it is stopped, running requests have some seconds to end, and are then told so.

    Args:
        chat: The chat model; its weights are loaded here if they are not yet.
        options: The options.

    Attributes:
        model_name: What clients call the model.
    """

    def __init__(self, chat: ChatLangNorm, options: ServerOptions | None = None) -> None:
        self._options = options or ServerOptions()
        self.model_name = model_name(chat, self._options)
        self._gate = Gate(self._options.max_requests)
        super().__init__(
            uvicorn.Config(
                build_app(chat, self._options, self._gate),
                lifespan="off",
                loop="auto",  # uvloop where it is installed, which costs each request less than asyncio's own
                # It limits the size of headers, and reads the body of a client that would rather have HTTP/2, as Java's
                # would: httptools does neither, and is faster.
                http="h11",
                access_log=False,
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=math.ceil(self._options.grace) + _SECONDS_TO_END,
            )
        )

    def url(self, listener: socket.socket) -> str:
        """Return the `base_url` of clients."""
        host = self._options.host
        port = listener.getsockname()[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in any more, and end what runs."""
        ending = asyncio.create_task(self._gate.stop(self._options.grace))
        await super().shutdown(sockets)
        ending.cancel()


def listen(options: ServerOptions) -> socket.socket:
    """Return the socket of a server.

    Raises:
        OptionError: The address or the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        msg = (
            f"The server cannot listen at `port={options.port}` of `host={options.host}` ({error}). Use another port, "
            "or 0 for any free one, or another address."
        )
        raise OptionError(msg) from error


def warn_if_open(options: ServerOptions) -> None:
    """Warn of a server that anybody may use who reaches this machine."""
    if not options.is_local and options.api_key is None:
        _log.warning(
            "Anybody who reaches %s may use this model. Set a key, by the variable %s.", options.host, KEY_VARIABLE
        )


def serve(chat: ChatLangNorm, options: ServerOptions | None = None, **fields: Any) -> None:
    """Serve a chat model until the process is told to stop, by Ctrl-C or SIGTERM.

    Args:
        chat: The chat model.
        options: The options; by default made of their fields.
        **fields: Fields of `ServerOptions`.

    Raises:
        OptionError: A value is not allowed, or the port cannot be had.
    """
    options = options or ServerOptions(**fields)
    with listen(options) as listener:
        warn_if_open(options)
        Server(chat, options).run([listener])

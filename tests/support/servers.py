"""A real server on the loopback address, in a thread of this process."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from langnorm.server.options import ServerOptions
from langnorm.server.running import Server, listen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langnorm import ChatLangNorm

LOOPBACK = pytest.mark.allow_hosts(["127.0.0.1"])
"""For modules of tests that ask a server of their own; everything else stays closed to them."""


@contextmanager
def running_server(chat: ChatLangNorm, **options: Any) -> Iterator[str]:
    """Serves a chat model inside the `with` block, and gives the `base_url` of clients."""
    settings = ServerOptions(**{"port": 0, "grace": 0.2, **options})
    with listen(settings) as listener:
        server = Server(chat, settings)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield server.url(listener)
        finally:
            server.should_exit = True
            thread.join()


def post(url: str, body: Any, **arguments: Any) -> httpx.Response:
    """Returns what a server answers to a request for a completion."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.post(f"{url}/chat/completions", json=body, **arguments)


def question(text: str = "Calculate 47 + 385.", **fields: Any) -> dict[str, Any]:
    """Returns the body of a request with one question."""
    return {"messages": [{"role": "user", "content": text}], **fields}

"""A server on the loopback address that answers what LangSmith's client asks, and remembers it; and a client of it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from uuid import UUID

import requests
from langsmith import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT_ID = UUID(int=7)
_PROJECT = {
    "id": str(PROJECT_ID),
    "name": "p",
    "tenant_id": str(UUID(int=8)),
    "reference_dataset_id": None,
    "start_time": "2026-01-01T00:00:00Z",
}
_BATCHES = {
    "use_multipart_endpoint": True,
    "size_limit": 100,
    "size_limit_bytes": 2**20,
    "scale_up_nthreads_limit": 1,
    "scale_up_qsize_trigger": 1000,
}


@dataclass
class LangSmithStub:
    """What it answers, and what it was asked.

    Attributes:
        version: Of LangSmith; clients send feedback on its own to old ones, and with runs to new ones.
        num_unknown: How often the project is not there yet.
        status: Of what it answers to a question for the project.
        requests: Method, path without its query, and body of all that it was asked.
        client: Asks it.
    """

    version: str = "0.12.0"
    num_unknown: int = 0
    status: int = 200
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    client: Client = field(init=False)

    def bodies(self, path: str) -> list[bytes]:
        """Returns the bodies of all requests for a path."""
        return [body for _, asked, body in self.requests if asked == path]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Returns status and content of an answer."""
        path = path.partition("?")[0]
        self.requests.append((method, path, body))
        if path == "/info":
            return 200, {"version": self.version, "batch_ingest_config": _BATCHES}
        if path == "/sessions":
            self.num_unknown -= 1
            return self.status, [] if self.num_unknown >= 0 else [_PROJECT]
        return 200, {}


@contextmanager
def running_langsmith(**fields: Any) -> Iterator[LangSmithStub]:
    """Serves inside the `with` block."""
    stub = LangSmithStub(**fields)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, content = stub.answer(self.command, self.path, body)
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        session = requests.Session()
        session.trust_env = False  # no proxy
        stub.client = Client(api_url=f"http://127.0.0.1:{server.server_port}", api_key="key", session=session)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield stub
        finally:
            stub.client.cleanup(5)
            server.shutdown()
            thread.join()

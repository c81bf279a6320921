"""What `langnorm serve` costs beside the same calls in this process, and whether many streams at once are whole.

    python -m benchmarks.serve                      # prints, and writes results/serve-cpu.json
    python -m benchmarks.serve --rounds 4           # does it work?
    python -m benchmarks.serve --publish docs/serving.md

The server's process is this one, and its clients are another: so CPU time of this process is that of the server. The
engine answers from a script, in next to no time, and a round asks each side the same number of times in turns: what a
request costs over the engine is the difference. Streams are measured where all tokens come at once, and where each one
comes in a turn of the event loop of its own, as from most models. An empty endpoint shows what the web server itself
costs. Then clients that stream ask Abacus different questions at once: each has to get, event by event, what the model
says here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import torch
import transformers
from langchain_core.messages import HumanMessage
from pydantic_core import from_json
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.documents import put
from benchmarks.setups import PACKAGES
from benchmarks.timing import machine, results_file, write_json
from langnorm import ChatLangNorm
from langnorm.engines.requests import Delta, Request
from langnorm.server.guard import JSON
from langnorm.server.options import ServerOptions
from langnorm.server.running import Server, listen
from langnorm.testing import ScriptedEngine

MARK = "serve"
BAR = 3.0
"""Most milliseconds of CPU time that a request may cost over the same call in this process."""

_PACKAGES = (*PACKAGES, "starlette", "uvicorn", "uvloop")
_PER_ROUND = 20  # requests
KINDS = {"whole": "whole", "streamed": "streamed", "token by token": "streamed"}
"""Ways to serve an answer, and the call in this process that each is compared with."""

_IN_WORDS = {"whole": "whole", "streamed": "streamed where all tokens come at once", "token by token": "one by one"}
QUESTION = "Calculate 47 + 385."
ANSWER = "<think>47 + 385 = 432. Check: 432 - 385 = 47.</think>The answer is 432."


class TokenByToken(ScriptedEngine):
    """Lets the event loop turn after each token."""

    async def astream(self, request: Request) -> AsyncGenerator[Delta]:
        """Yield what `stream` yields."""
        async for delta in super().astream(request):
            yield delta
            await asyncio.sleep(0)


@contextmanager
def served(chat: ChatLangNorm, app: ASGIApp | None = None) -> Iterator[str]:
    """Serve a chat model, or another application in its place, inside the `with` block, and give the address."""
    options = ServerOptions(port=0, grace=0)
    with listen(options) as listener:
        server = Server(chat, options)
        if app:
            server.config.app = app
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield server.url(listener)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def served_empty(chat: ChatLangNorm) -> Iterator[str]:
    """Serve, by the same web server, an application that reads each request and answers with an empty object."""

    async def empty(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await JSON({})(scope, receive, send)

    with served(chat, empty) as url:
        yield url


@contextmanager
def client(url: str) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """Run a process of clients; what is given to it as JSON it answers with JSON."""
    command = [sys.executable, "-m", "benchmarks.serve", "--client", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        to, fro = process.stdin, process.stdout

        def ask(work: dict[str, Any]) -> Any:
            to.write(json.dumps(work) + "\n")
            to.flush()
            return json.loads(fro.readline())

        yield ask
        to.close()


def run_client(url: str) -> None:
    """Do what each line of the standard input says, and say when it is done."""
    with httpx.Client(trust_env=False, timeout=600) as connection:
        for line in sys.stdin:
            work = json.loads(line)
            if "questions" in work:
                done: Any = asyncio.run(_streams(url, work["questions"]))
            else:
                for _ in range(work["times"]):
                    connection.post(f"{url}/chat/completions", json=_body(QUESTION, work["stream"])).raise_for_status()
                done = None
            print(json.dumps(done), flush=True)


async def _streams(url: str, questions: list[str]) -> list[list[str]]:
    """Return the parts of the answers that come to clients who ask at once."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(trust_env=False, timeout=600, limits=limits) as connection:

        async def ask(question: str) -> list[str]:
            parts = []
            async with connection.stream("POST", f"{url}/chat/completions", json=_body(question, True)) as response:  # noqa: FBT003
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        delta = from_json(line.removeprefix("data: "))["choices"][0]["delta"]
                        parts.append(delta.get("reasoning_content", "") or delta.get("content", ""))
            return parts

        return list(await asyncio.gather(*map(ask, questions)))


def _body(question: str, stream: bool) -> dict[str, Any]:  # noqa: FBT001
    messages = [{"role": "user", "content": question}]
    return {"messages": messages, "stream": stream, "temperature": 0, "max_tokens": 300, "langnorm": {}}


def measure_requests(engine: ScriptedEngine, rounds: int) -> dict[str, list[float]]:
    """Return the CPU milliseconds of a call, whole and streamed, here and over HTTP, by round."""
    chat = ChatLangNorm(engine=engine, model="scripted", temperature=0, max_tokens=300)
    request = chat._prepare([HumanMessage(QUESTION)], None, {}).request

    def times(work: Callable[[], Any]) -> Callable[[], None]:
        def repeated() -> None:
            for _ in range(_PER_ROUND):
                work()

        return repeated

    slow = ChatLangNorm(
        engine=TokenByToken([ANSWER], is_repeated=True), model="scripted", temperature=0, max_tokens=300
    )
    with (
        served(chat) as url,
        client(url) as ask,
        served(slow) as slow_url,
        client(slow_url) as ask_slow,
        served_empty(chat) as bare_url,
        client(bare_url) as ask_bare,
    ):
        works: dict[str, Callable[[], Any]] = {
            "engine alone": times(lambda: engine.generate([request])),
            "an empty endpoint": lambda: ask_bare({"times": _PER_ROUND, "stream": False}),
            "whole, in this process": times(lambda: chat.invoke(QUESTION)),
            "whole, served": lambda: ask({"times": _PER_ROUND, "stream": False}),
            "streamed, in this process": times(lambda: list(chat.stream(QUESTION))),
            "streamed, served": lambda: ask({"times": _PER_ROUND, "stream": True}),
            "token by token, served": lambda: ask_slow({"times": _PER_ROUND, "stream": True}),
        }
        found: dict[str, list[float]] = {name: [] for name in works}
        for number in range(rounds + 1):
            for name, work in works.items() if number % 2 else reversed(works.items()):
                start = time.process_time()
                work()
                if number:  # the first round warms up
                    found[name].append((time.process_time() - start) / _PER_ROUND * 1000)
    return found


def measure_streams(num_clients: int) -> dict[str, Any]:
    """Return how many of the streams of clients at once say what the model says here."""
    questions: list[Any] = [f"Calculate {100 + 7 * number} + {385 - 3 * number}." for number in range(num_clients)]
    chat = ChatLangNorm(temperature=0, max_tokens=300)
    expected = chat.batch(questions)
    with served(chat) as url, client(url) as ask:
        answers = ask({"questions": questions})
    whole = [str(reply.additional_kwargs["reasoning_content"]) + reply.text for reply in expected]
    return {
        "clients": num_clients,
        "whole and in order": sum("".join(parts) == text for parts, text in zip(answers, whole, strict=True)),
        "events": sum(map(len, answers)),
    }


def overhead(rows: dict[str, list[float]], kind: str) -> dict[str, float]:
    """Return what a request costs over the same call in this process, in milliseconds: median and quartiles."""
    pairs = zip(rows[f"{kind}, served"], rows[f"{KINDS[kind]}, in this process"], strict=True)
    differences = [served - local for served, local in pairs]
    lower, _, upper = quantiles(differences, n=4)
    return {"median": median(differences), "lower": lower, "upper": upper}


def report(document: dict[str, Any]) -> str:
    """Return what was measured as the sentences of the documentation."""
    streams = document["streams"]
    words = []
    for kind in KINDS:
        found = document["overhead"][kind]
        words.append(f"{found['median']:.1f} ms ({found['lower']:.1f} to {found['upper']:.1f}) {_IN_WORDS[kind]}")
    return (
        f"A request of {document['tokens']} tokens costs {', '.join(words[:-1])} and {words[-1]}, of CPU time over the "
        f"same call in the server's process, which takes {document['local']['whole']:.1f} ms; an endpoint that does "
        f"nothing costs {median(document['requests']['an empty endpoint']):.1f} ms. Of {streams['clients']} clients "
        f"that stream at once, {streams['whole and in order']} get all of their answer, in order."
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--out", type=Path, default=results_file("serve", "cpu"))
    parser.add_argument("--publish", type=Path, help="a Markdown file whose figures are replaced")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        run_client(options.client)
        return
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    engine = ScriptedEngine([ANSWER], is_repeated=True)
    requests = measure_requests(engine, options.rounds)
    document: dict[str, Any] = {
        "machine": machine(_PACKAGES),
        "tokens": len(engine.generate([engine.requests[0]])[0].completions[0].token_ids),
        "requests": requests,
        "local": {kind: median(requests[f"{kind}, in this process"]) for kind in ("whole", "streamed")},
        "overhead": {kind: overhead(requests, kind) for kind in KINDS},
        "streams": measure_streams(options.clients),
    }
    for name, milliseconds in requests.items():
        print(f"{name}: {median(milliseconds):.2f} ms of CPU time a request")
    for kind, found in document["overhead"].items():
        is_met = "pass" if found["median"] <= BAR else "MISS"
        span = f"{found['lower']:.2f} to {found['upper']:.2f}"
        print(f"{kind}: {found['median']:.2f} ms over this process, quartiles {span} ({is_met}: {BAR} ms)")
    print(json.dumps(document["streams"]))
    write_json(options.out, document)
    if options.publish:
        put(options.publish, MARK, report(document))


if __name__ == "__main__":
    main()

"""vLLM's own server with langnorm's plugin: who asks for findings gets langnorm's answer, all others get vLLM's."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from openai import OpenAI

import langnorm.abacus
from langnorm import ChatLangNorm, NormTrace
from tests.support.servers import LOOPBACK
from tests.vllm.conftest import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types.chat import ChatCompletionMessage

pytestmark = [
    LOOPBACK,
    pytest.mark.timeout(600),
    pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="Triton is interpreted in this process alone"),
]

KEY = "right"
NUM_STREAMS = 16


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """Returns the `base_url` of a server that runs until the tests here have ended.

    It then ends at Ctrl-C, in the midst of streams, whose clients are told.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", langnorm.abacus.path()]
    command += ["--served-model-name", "abacus", "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY]
    command += ["--dtype", "float32", "--max-model-len", "2048", "--enforce-eager"]
    command += ["--additional-config", '{"langnorm": {}}']
    more = {"VLLM_PLUGINS": "langnorm", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | more) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            while not _is_healthy(address):
                assert process.poll() is None, log.read_text()
                time.sleep(0.2)
            yield f"{address}/v1"
            with ThreadPoolExecutor(NUM_STREAMS) as pool:
                ends = [pool.submit(_last_event, address) for _ in range(NUM_STREAMS)]
                time.sleep(0.5)
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 0
            assert any("engine_ended" in end.result() for end in ends)
            before, _, after = log.read_text().partition("[shutdown]")
            assert "Traceback" not in before
            assert "langnorm" not in after  # vLLM's own tasks may still look for their engine
        finally:
            process.kill()


def _last_event(address: str) -> str:
    """Returns how a stream of many tokens ends, which asks for the norms of each of them."""
    body = {
        "messages": [{"role": "user", "content": QUESTIONS[0]}],
        "temperature": 2.5,
        "max_tokens": 1900,
        "stream": True,
        "langnorm": {"norms": "tokens"},
    }
    headers, last = {"authorization": f"Bearer {KEY}"}, ""
    try:
        with (
            httpx.Client(trust_env=False, timeout=60) as client,
            client.stream("POST", f"{address}/v1/chat/completions", json=body, headers=headers) as answer,
        ):
            for line in answer.iter_lines():
                last = line or last
    except httpx.TransportError:
        pass
    return last


def _is_healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def client(url) -> Iterator[OpenAI]:
    """Returns OpenAI's client of the server."""
    with httpx.Client(trust_env=False) as http, OpenAI(base_url=url, api_key=KEY, http_client=http) as client:
        yield client


@pytest.fixture(scope="module")
def remote(url) -> ChatLangNorm:
    """Returns a chat model that asks the server."""
    return ChatLangNorm(engine="remote", base_url=url, api_key=KEY, temperature=0)


@pytest.fixture(scope="module")
def local(abacus_engine) -> ChatLangNorm:
    """Returns the same model in this process, on transformers."""
    return ChatLangNorm(engine=abacus_engine, temperature=0)


def ask(client: OpenAI, question: str, **fields: Any) -> ChatCompletionMessage:
    """Returns the answer to a question."""
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="abacus", messages=messages, temperature=0, **fields).choices[0].message


def test_who_asks_for_nothing_is_answered_by_vllm(client, local) -> None:
    """In the midst of others that ask for findings, whose tokens are the same."""
    asked = [(question, own) for question in QUESTIONS for own in ({}, {"langnorm": {"norms": "steps"}})] * 3
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda one: ask(client, one[0], max_tokens=300, extra_body=one[1]), asked))
    for (question, own), message in zip(asked, found, strict=True):
        right = local.invoke(question)
        reasoning = right.additional_kwargs.get("reasoning_content")
        if own:
            trace = NormTrace.from_dict(message.model_extra["langnorm"])
            assert (message.content, message.model_extra.get("reasoning_content")) == (right.content, reasoning)
            assert trace.mean == pytest.approx(NormTrace.from_message(right).mean, rel=1e-4)
        else:
            assert not message.model_extra.get("langnorm")
            assert right.content in message.content
            assert reasoning is None or f"<think>\n{reasoning}" in message.content


@pytest.mark.parametrize(
    "options",
    [
        {"norms": "tokens", "logprobs": True},
        {"recursion": {}},
        {"steering": {"trigger": "slack"}},
        {"recursion": {"mode": "block"}},
        {"selection": {"n": 3}, "temperature": 1.5, "seed": 3},
    ],
    ids=["plain", "recursion", "steering", "block", "selection"],
)
def test_a_remote_chat_model_is_answered_as_a_local_one(remote, local, options) -> None:
    """Whole and streamed: text, norms, and what was done to states."""
    right = local.invoke(QUESTIONS[1], **options)
    whole = remote.invoke(QUESTIONS[1], **options)
    streamed = reduce(add, remote.stream(QUESTIONS[1], **options))
    trace = NormTrace.from_message(right)
    for message in (whole, streamed):
        found = NormTrace.from_message(message)
        assert message.content == right.content
        assert found.mean == pytest.approx(trace.mean, rel=1e-4)
        assert found.tokens == trace.tokens
        for name in ("recursion", "steering"):
            assert bool(getattr(found, name)) == bool(getattr(trace, name))
    assert whole.response_metadata["engine"] == "vllm"


def test_tokens_are_counted_and_models_listed(client, remote, local) -> None:
    """As `langnorm serve` has them; what vLLM says of its model stays."""
    assert remote.get_token_ids("Hello there") == local.get_token_ids("Hello there")
    for thinks in (True, False):
        one, other = (chat.model_copy(update={"enable_thinking": thinks}) for chat in (remote, local))
        assert one.get_num_tokens_from_messages(_messages()) == other.get_num_tokens_from_messages(_messages())
    (model,) = client.models.list().data
    assert (model.id, model.owned_by, model.langnorm["engine"]) == ("abacus", "vllm", "vllm")


def _messages() -> list[Any]:
    from langchain_core.messages import HumanMessage

    return [HumanMessage("Hello there")]


def test_what_is_not_allowed_is_refused(url) -> None:
    """With the reason, and without the key not even that."""
    messages, headers = [{"role": "user", "content": "Hello"}], {"authorization": f"Bearer {KEY}"}
    cases = [
        (400, "Did you mean `block`", {"langnorm": {"recursion": {"bloc": 3}}}),
        (400, "Use an object of options", {"langnorm": 3}),
        (404, "no model `nobody`", {"langnorm": {}, "model": "nobody"}),
    ]
    with httpx.Client(trust_env=False, timeout=60) as client:
        for status, words, fields in cases:
            body = {"model": "abacus", "messages": messages, **fields}
            answer = client.post(f"{url}/chat/completions", json=body, headers=headers)
            assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True)
            assert client.post(f"{url}/chat/completions", json=body).status_code == 401
        broken = client.post(f"{url}/chat/completions", content=b'{"langnorm', headers=headers)
        assert broken.status_code == 400


def test_streams_that_are_left_end_in_vllm(url, client) -> None:
    """The sequence is given up, and the next one is answered."""
    stream = client.chat.completions.create(
        model="abacus",
        messages=[{"role": "user", "content": QUESTIONS[0]}],
        temperature=2.5,
        stream=True,
        max_tokens=1900,
        extra_body={"langnorm": {}},
    )
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 30
    while _num_running(url):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "432" in ask(client, QUESTIONS[1], extra_body={"langnorm": {}}).content


def _num_running(url: str) -> float:
    text = httpx.get(url.replace("/v1", "/metrics"), trust_env=False).text
    return float(re.search(r"^vllm:num_requests_running\{.*\} (\S+)$", text, re.MULTILINE)[1])

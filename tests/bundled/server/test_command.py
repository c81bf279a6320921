"""`langnorm serve`: how it starts, what it refuses, and how it ends; and what the documentation shows of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from langnorm import ChatLangNorm, NormTrace
from langnorm.cli import app
from langnorm.cli.options import parse_engine_options
from langnorm.server.options import ServerOptions
from langnorm.server.running import listen
from tests.support.servers import LOOPBACK, post, question, running_server

pytestmark = LOOPBACK

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"


def run(*arguments: str) -> tuple[int, str]:
    """Runs `langnorm serve` in this process; returns its exit code and output."""
    result = CliRunner().invoke(app, ["serve", *arguments])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_server_runs_until_it_is_told_to_stop(end: signal.Signals) -> None:
    """It says where it is to be found, answers, and ends by itself at a signal, without a traceback."""
    command = [sys.executable, "-m", "langnorm", "serve", "--port", "0", "--max-tokens", "20", "--grace", "0"]
    variables = {**os.environ, "LANGNORM_API_KEY": "right", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables) as process:
        assert process.stdout
        assert process.stderr
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"abacus is served at (http://127\.0\.0\.1:\d+/v1) \(Ctrl-C ends it\)\n", line)
            assert found, line
            headers = {"authorization": "Bearer right"}
            answer = post(found[1], question(temperature=0), headers=headers).json()
            assert answer["usage"]["completion_tokens"] == 20
            assert httpx.get(f"{found[1]}/models", trust_env=False).status_code == 401
            process.send_signal(end)
            assert process.wait(30) in (0, 128 + end, -end)
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--port", "99999"], "--port"),
        (["--norms", "of"], "`--norms of` is not allowed"),
        (["--timeout", "0"], "`--timeout 0.0` is not allowed"),
        (["--engine", "transformer"], "Did you mean `transformers`"),
        (["/there/is/no/such/folder"], "There is no folder"),
        (["--hots", "x"], "No such option"),
        (["--engine-option", "tensor_parallel_size"], "`tensor_parallel_size` is not NAME=VALUE"),
        (["--engine-option", "=2"], "`=2` is not NAME=VALUE"),
        (["--engine-option", "a=2", "--engine-option", "a=3"], "`a` is given twice"),
        (["--engine", "transformers", "--engine-option", "a=2"], "no `--engine-option`, and `a` was given"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_served(arguments: list[str], match: str) -> None:
    """In the words of the command line."""
    code, output = run(*arguments, *(() if "--port" in arguments else ("--port", "0")))
    assert code != 0
    assert match in output


def test_options_of_the_engine_reach_it() -> None:
    """Values are JSON, or text where they are none of it."""
    entries = ["tensor_parallel_size=2", "enforce_eager=true", "kv_cache_dtype=fp8", 'override={"a": [1]}', "path=a=b"]
    expected = {"tensor_parallel_size": 2, "enforce_eager": True, "kv_cache_dtype": "fp8", "override": {"a": [1]}}
    assert parse_engine_options(entries) == expected | {"path": "a=b"}
    assert parse_engine_options(None) == {}


def test_a_port_that_is_taken() -> None:
    """Is an error in one line."""
    with listen(ServerOptions(port=0)) as listener:
        port = str(listener.getsockname()[1])
        code, output = run("--port", port)
    assert code == 1
    assert f"cannot listen at `--port {port}`" in output


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to install them."""
    monkeypatch.setattr("langnorm.cli.serve.find_spec", lambda _: None)
    code, output = run()
    assert code == 1
    assert 'pip install "langnorm[serve]"' in output


def test_the_readme(abacus_engine: Any) -> None:
    """Its remote chat model asks a server, with the key that it shows."""
    (block,) = re.findall(r"```python\n(chat = ChatLangNorm\(engine=\"remote\".*?)```", PAGE.read_text(), re.DOTALL)
    chat = ChatLangNorm(engine=abacus_engine, model="abacus", temperature=0, max_tokens=30)
    with running_server(chat, api_key="secret") as url:
        namespace: dict[str, Any] = {"ChatLangNorm": ChatLangNorm}
        exec(block.replace("http://127.0.0.1:8000/v1", url), namespace)
        reply = namespace["chat"].invoke("Calculate 47 + 385.")
    assert NormTrace.from_message(reply).tokens == 30

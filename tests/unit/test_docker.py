"""The Dockerfiles, which are read here and not built: what they copy and install is there, and how their images run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import typer
from dockerfile_parse import DockerfileParser

from langnorm.cli import app
from langnorm.engines.registry import check_engine_name
from tests.support.servers import LOOPBACK

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


def test_there_is_one_for_each_kind_of_machine() -> None:
    """Without a GPU, and with NVIDIA's."""
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "cuda.Dockerfile"]


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def parser(request, tmp_path) -> DockerfileParser:
    """Returns one of them, parsed."""
    copy = tmp_path / "Dockerfile"
    copy.write_text(request.param.read_text())
    return DockerfileParser(str(copy))


def values(parser: DockerfileParser, instruction: str) -> list[str]:
    """Returns what stands behind each instruction of a kind."""
    return [item["value"] for item in parser.structure if item["instruction"] == instruction]


def test_it_begins_with_a_version_of_python_that_is_supported(parser) -> None:
    """And not with whichever is the latest."""
    version = re.fullmatch(r"python:3\.(\d+)-slim-\w+", parser.baseimage)
    assert version
    assert f"Programming Language :: Python :: 3.{version[1]}" in PROJECT["project"]["classifiers"]


def test_what_is_copied_is_there_and_suffices(parser) -> None:
    """The files of the package are in what docker is given, and nothing is that no image needs."""
    copied = [source for value in values(parser, "COPY") for source in value.split()[:-1]]
    assert all((ROOT / source).exists() for source in copied)
    project, build = PROJECT["project"], PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["readme"], *project["license-files"], *build["packages"]}
    assert needed <= {*copied, *(name for name in needed if name.split("/")[0] in copied)}
    given = {line.removeprefix("!") for line in IGNORED if line.startswith("!")}
    assert IGNORED.index("*") < min(IGNORED.index(f"!{name}") for name in given)
    assert set(copied) <= given


def test_what_is_installed_is_pinned(parser) -> None:
    """By the constraints of the tests, or by the version of vLLM; the extras are those of the package."""
    installed = [value for value in values(parser, "RUN") if value.startswith("pip install")]
    assert installed
    for command in installed:
        assert "--constraint constraints.txt" in command or '"${VLLM}"' in command
        for extra in re.findall(r'"\.\[(.*?)\]"', command):
            assert set(extra.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
            assert "serve" in extra.split(",")


def test_nothing_runs_as_root(parser) -> None:
    """The user is another one from the last installed file on; models are in a volume that is theirs."""
    instructions = [item["instruction"] for item in parser.structure]
    assert values(parser, "USER") == ["langnorm"]
    assert max(number for number, name in enumerate(instructions) if name in ("RUN", "COPY")) < instructions.index(
        "USER"
    )
    (volume,) = values(parser, "VOLUME")
    assert parser.envs["HF_HOME"] == volume
    assert any(f"--owner=langnorm --group=langnorm {volume}" in value for value in values(parser, "RUN"))


def test_it_serves_with_the_options_of_the_command(parser) -> None:
    """To whoever reaches the container, at the port that is exposed and looked at; more options may follow."""
    (entry_point,), (arguments,) = values(parser, "ENTRYPOINT"), values(parser, "CMD")
    program, command, *options = json.loads(entry_point)
    assert program in PROJECT["project"]["scripts"]
    group: Any = typer.main.get_command(app)
    parameters = group.commands[command].make_context(command, [*options, *json.loads(arguments)]).params
    assert parameters["host"] == "0.0.0.0"
    check_engine_name(parameters["engine"])
    assert values(parser, "EXPOSE") == [str(parameters["port"])]
    assert f":{parameters['port']}/health', " in values(parser, "HEALTHCHECK")[0]
    group.commands[command].make_context(
        command, [*options, "Qwen/Qwen3-0.6B", "--engine-option", "max_model_len=4096"]
    )


@LOOPBACK
@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False)])
def test_it_is_healthy_when_the_server_says_so(parser, status, is_healthy) -> None:
    """And not when it says otherwise."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    (check,) = values(parser, "HEALTHCHECK")
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert program == "python"
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        arguments = [argument.replace(":8000/", f":{server.server_port}/") for argument in arguments]
        process = subprocess.run([sys.executable, *arguments], capture_output=True, check=False, timeout=60)
        server.shutdown()
    assert (process.returncode == 0) == is_healthy

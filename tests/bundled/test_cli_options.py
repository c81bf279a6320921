"""The options of the command line that say which model is loaded, how, and by what its norms are measured."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner, Result

import langnorm.abacus
from langnorm import NormProfile
from langnorm.cli import app
from langnorm.engines.transformers import gguf
from tests.support.gguf_files import write_gguf

QUESTION = "What is 47 + 385?"


@pytest.fixture(autouse=True)
def _plain_looks(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv(gguf.CACHE_VARIABLE, str(tmp_path / "kept"))


def run(*arguments: object) -> Result:
    """Runs `langnorm` in this process, its output not a terminal."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def ask(*arguments: object) -> dict:
    """Returns the message that `langnorm ask` prints as JSON."""
    result = run("ask", QUESTION, "--json", "--max-tokens", 12, *arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return json.loads(result.stdout)


def test_a_gguf_file_is_asked(tmp_path, model_of, tokenizer) -> None:
    """As the model itself, or as a file in a folder; nothing is said on standard error where it is no terminal."""
    path = write_gguf(tmp_path / "m.gguf", model_of("qwen2"), tokenizer)
    one, two = ask("--model", path), ask("--model", tmp_path, "--gguf", "m.gguf", "--dtype", "float32")
    assert one["content"] == two["content"]
    assert one["usage_metadata"] == two["usage_metadata"]
    assert one["response_metadata"]["model_name"] == str(path)


def test_dtype_device_template_splitter_and_profile_reach_the_model(tmp_path) -> None:
    """Each changes what it is for."""
    plain = ask("--device", "cpu")
    template = tmp_path / "t.jinja"
    template.write_text("{% for message in messages %}{{ message.content }}{% endfor %} Answer:")
    other = ask("--chat-template", template)
    assert other["usage_metadata"]["input_tokens"] != plain["usage_metadata"]["input_tokens"]
    lines = ask("--step-splitter", "line")["response_metadata"]["langnorm"]
    assert lines["steps"]
    profile = NormProfile.load(langnorm.abacus.path() / "norm_profile.json")
    profile.name = "mine"
    profile.save(tmp_path / "p.json")
    narrow = ask("--dtype", "bfloat16")["response_metadata"]["langnorm"]
    known = ask("--profile", tmp_path / "p.json")["response_metadata"]["langnorm"]
    assert narrow["mean"] != plain["response_metadata"]["langnorm"]["mean"]
    assert "mine" in json.dumps(known)


def test_calibrate_takes_dtype_device_and_temperature(tmp_path) -> None:
    """The profile is of the model as it was loaded."""
    (tmp_path / "prompts.txt").write_text("What is 3 + 4?\nHello!\n")
    out = tmp_path / "p.json"
    settings = ("--dtype", "bfloat16", "--device", "cpu", "--temperature", 1, "--num-tokens", 30, "--max-tokens", 12)
    result = run("calibrate", "--prompts", tmp_path / "prompts.txt", "--out", out, *settings)
    assert result.exit_code == 0, result.output
    assert NormProfile.load(out).identity.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "flot32"], "`--dtype flot32` is not allowed"),
        (["--device", "gpu"], "`--device gpu` is not allowed"),
        (["--step-splitter", "word"], "`--step-splitter word` is not allowed"),
        (["--profile", "/no/such/file"], "`/no/such/file` cannot be read"),
        (["--chat-template", "/no/such/file"], "`/no/such/file` cannot be read"),
        (["--gguf", "no.gguf"], "has no file `no.gguf`"),
        (["--model", "no.gguf"], "There is no file `no.gguf`"),
    ],
)
def test_errors_are_in_the_words_of_the_command_line(arguments, message) -> None:
    """One line with the option's own name."""
    result = run("ask", QUESTION, *arguments)
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr)
    assert message in result.stderr
    assert "model_kwargs" not in result.stderr


@pytest.mark.parametrize("command", ["ask", "trace", "chat", "calibrate", "eval", "probe signal", "probe causal"])
def test_commands_take_options_of_the_engine(command, tmp_path) -> None:
    """They reach the engine that is asked for, which here has none; a mistake is named before a model is loaded."""
    (tmp_path / "prompts.txt").write_text(QUESTION)
    own = {"ask": [QUESTION], "trace": [QUESTION]}
    own |= {"calibrate": ["--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "p.json"]}
    own |= {"probe signal": ["--out", tmp_path / "p.html"], "probe causal": ["--out", tmp_path / "p.md"]}
    arguments = [*command.split(), *own.get(command, []), "--engine-option"]
    refused = run(*arguments, "a=2", "--engine", "transformers")
    error = "Error: The engine `transformers` has no `--engine-option`, and `a` was given. Leave it out.\n"
    assert refused.stderr == error
    assert "`a` is not NAME=VALUE" in run(*arguments, "a").stderr


def test_a_model_without_a_template_says_how_to_give_one(tmp_path, model_of, tokenizer, monkeypatch) -> None:
    """By the option, not by an argument of Python."""
    monkeypatch.setattr(tokenizer, "chat_template", None)
    path = write_gguf(tmp_path / "m.gguf", model_of("qwen2"), tokenizer)
    result = run("ask", QUESTION, "--model", path)
    assert result.exit_code == 1
    assert "`--chat-template FILE`" in result.stderr

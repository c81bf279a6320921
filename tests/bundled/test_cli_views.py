"""`langnorm trace` and `langnorm chat` on Abacus."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from langnorm.cli import app, loading
from tests.support.terminal import on_terminal, read_terminal

QUESTION = "What is 47 + 385?"
posix = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")


def run(*arguments: object, **options: Any) -> Result:
    """Runs `langnorm` in this process, its output not a terminal."""
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "100"}, **options)


def data_of(path) -> dict[str, Any]:
    """Returns the data of a page."""
    return json.loads(re.search(r'id="data">(.*?)</script', path.read_text("utf-8"))[1])


def test_a_trace_is_shown_and_written_as_a_page(tmp_path) -> None:
    """The text of all tokens, a line for each step, and a page with the question above it."""
    result = run("trace", QUESTION, "--max-tokens", 40, "--html", tmp_path / "out.html")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    data = data_of(tmp_path / "out.html")
    (answer,) = data["answers"]
    assert data["title"] == QUESTION
    assert result.stdout.startswith("".join(answer["texts"]))
    assert len(re.findall(r"(?m)^ +\d+  [▇·]{10}", result.stdout)) == len(answer["steps"])
    assert len(answer["logprobs"]) == answer["tokens"] == len(answer["norms"][0]) + 1
    assert answer["percentiles"]
    assert answer["distances"]


def test_several_answers_stand_beside_each_other(tmp_path) -> None:
    """Best first; the best is shown on the terminal, with the votes."""
    arguments = ("--select", 3, "--seed", 7, "--max-tokens", 40, "--vote", "majority", "--html", tmp_path / "out.html")
    result = run("trace", QUESTION, *arguments)
    assert result.exit_code == 0, result.output
    answers = data_of(tmp_path / "out.html")["answers"]
    assert [answer["name"][:2] for answer in answers] == ["1.", "2.", "3."]
    assert [bool(answer.get("is_chosen")) for answer in answers] == [True, False, False]
    assert result.stdout.startswith("".join(answers[0]["texts"]))
    assert "Candidate" in result.stdout


@pytest.mark.parametrize("score", ["self_certainty", "settling"])
def test_a_trace_keeps_what_its_score_reads(score) -> None:
    """Distributions of tokens, or how late they settled."""
    result = run("trace", QUESTION, "--select", 2, "--score", score, "--max-tokens", 20)
    assert (result.exit_code, result.stderr) == (0, ""), result.output


def test_what_a_selection_lacks_is_said_before_answers_are_sampled(monkeypatch) -> None:
    """Here answers that differ."""
    monkeypatch.setattr("langnorm.chat_models.ChatLangNorm.generate", lambda *_, **__: pytest.fail("sampled"))
    result = run("trace", QUESTION, "--select", 2, "--temperature", 0)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "`--temperature 0.0` gives the same one 2 times" in result.stderr


def test_scores_and_weights_reach_the_selection() -> None:
    """By name, by weights, or none at all."""
    for score, expected in (("mean", "mean"), ("mean=1,shorter=0.5", {"mean": 1.0, "shorter": 0.5}), ("none", None)):
        result = run(
            "ask", QUESTION, "--select", 2, "--score", score, "--combine", "ranks", "--max-tokens", 20, "--json"
        )
        ranking = json.loads(result.stdout)["response_metadata"]["langnorm"]["selection"]
        assert ranking["score"] == expected
        assert ranking["combine"] == "ranks"
    stopped = json.loads(run("ask", QUESTION, "--select", 6, "--stop", "unanimous", "--json").stdout)
    assert stopped["response_metadata"]["langnorm"]["selection"]["stop"]["rule"] == "unanimous"
    relative = json.loads(run("ask", QUESTION, "--intensity", "token", "--json").stdout)
    assert relative["response_metadata"]["langnorm"]["intensity_kind"] == "token"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "--score", "mean"], "`--score` is about the choice among several answers. Add `--select N`."),
        (["ask", "--stop", "beta"], "`--stop` is about the choice among several answers."),
        (["ask", "--select", 2, "--vote", "most"], "`--vote most` is not allowed."),
        (["ask", "--select", 2, "--score", "mean=x"], "`--score mean=x` is not allowed."),
        (["ask", "--select", 2, "--score", "mean=1,mean=2"], "`--score mean=1,mean=2` has two weights of `mean`."),
        (["ask", "--engine", "remote"], "`--engine remote` asks a server, and the command line has no option"),
        (["ask", "--select", 2, "--score", "maen"], "There is no score `maen`."),
        (["trace", "--select", 2, "--score", "mean=1,coe_r=1"], "`--score mean=1,coe_r=1` reads hidden states"),
        (["trace", "--select", 2, "--score", "relative_update"], "`langnorm ask --select`"),
        (["ask", "--intensity", "tokn"], "`--intensity tokn` is not allowed."),
        (["trace", "--html", "/absent/out.html"], "`/absent/out.html` cannot be written."),
    ],
)
def test_errors_come_before_the_model_and_in_one_line(arguments, message) -> None:
    """In the words of the command line."""
    result = run(arguments[0], QUESTION, *arguments[1:])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr)
    assert message in result.stderr
    assert "of a Sample" not in result.stderr


def test_debug_shows_where_an_error_arose(monkeypatch) -> None:
    """Errors of the user's and unforeseen ones; without it they are a line, which names the option."""

    def fail(**_: object) -> None:
        raise KeyError(QUESTION)

    assert "Layer `99`" in str(run("ask", QUESTION, "--layers", "99", "--debug").exception)
    monkeypatch.setattr(loading, "load_chat", fail)
    result = run("ask", QUESTION)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith(f"Error: KeyError: {QUESTION!r}. This was not foreseen: with `--debug`")
    assert isinstance(run("ask", QUESTION, "--debug").exception, KeyError)


def test_a_conversation_comes_from_a_pipe() -> None:
    """Line by line; what is no question is obeyed, and the end of the pipe is the end."""
    result = run("chat", "--max-tokens", 40, input=f"{QUESTION}\n/steps\n/quti\nHello!\n")
    assert result.exit_code == 0, result.output
    assert "hardest: step " in result.stdout
    assert "step  intensity" in result.stdout
    assert "There is no command `/quti`. Did you mean `/quit`?" in result.stderr
    assert result.stdout.count(" tokens · intensity ") == 2


@posix
def test_ctrl_c_ends_an_answer_of_a_conversation_and_not_the_program() -> None:
    """On a terminal: the answer ends, the prompt comes back, the next question is answered, Ctrl-D leaves."""
    endless = ("chat", "--temperature", "100", "--seed", "0")
    with on_terminal(*endless) as (process, ours):
        read_terminal(ours, until=b"> ")
        os.write(ours, b"Talk!\n")
        read_terminal(ours, until=b"norms ")
        process.send_signal(signal.SIGINT)
        read_terminal(ours, until=b"> ")
        os.write(ours, b"/help\n")
        assert "/steps" in read_terminal(ours, until=b"> ")
        os.write(ours, b"\x04")
        assert process.wait(timeout=60) == 0

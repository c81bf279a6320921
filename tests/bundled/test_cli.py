"""The command line on Abacus: what it prints, and how it ends when something is wrong or interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from typer.testing import CliRunner, Result

from langnorm import ChatLangNorm, NormProfile, NormTrace, __version__
from langnorm.cli import app, loading
from langnorm.trace import NormStep
from tests.support.terminal import COMMAND, environment, on_terminal, read_terminal

QUESTION = "What is 47 + 385?"
ENDLESS = ["ask", QUESTION, "--temperature", "100", "--seed", "0"]  # noise, which hardly ever ends by itself
ESCAPE = "\x1b"

posix = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")


@pytest.fixture(autouse=True)
def _plain_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")


def run(*arguments: str, **options: Any) -> Result:
    """Run `langnorm` in this process, its output not a terminal."""
    return CliRunner().invoke(app, list(arguments), **options)


def ask(*arguments: str, **options: Any) -> Result:
    """Run `langnorm ask`, short and successfully."""
    result = run("ask", *arguments, "--max-tokens", "40", **options)
    assert result.exit_code == 0, result.output
    return result


def rows_of(output: str) -> list[list[str]]:
    """Return the cells of each row of the tables in `output`, headers included."""
    table = output[output.index("step  ") :]
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines() if not set(line) <= set("─- ")][:-1]


def starting(*arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    """Start `langnorm` in a process of its own, with pipes."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=pipe,
        stderr=pipe,
        env=environment(**variables),
        # Tests that run in the background inherit an ignored SIGINT, which the command would respect.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


class StandInChat:
    """Streams given text, so that its look can be tested whatever the model says."""

    def __init__(self, reasoning: str, answer: str, trace: NormTrace, finish_reason: str = "stop") -> None:
        metadata = {
            "langnorm": trace.to_dict(),
            "model_name": "stand-in",
            "engine": "transformers",
            "finish_reason": finish_reason,
        }
        self._chunks = [
            AIMessageChunk(content="", additional_kwargs={"reasoning_content": reasoning}),
            AIMessageChunk(content=answer),
            AIMessageChunk(content="", response_metadata=metadata, chunk_position="last"),
        ]

    def stream(self, _messages: list[tuple[str, str]]) -> Iterator[AIMessageChunk]:
        """Yield the chunks."""
        yield from self._chunks


def trace_of(*steps: NormStep, intensity: float | None = None) -> NormTrace:
    """Return a trace of layer 3 and layer 4."""
    return NormTrace(tokens=9, layers=(3, 4), mean=(1.0, 2.0), steps=steps, intensity=intensity)


def show(monkeypatch: pytest.MonkeyPatch, chat: StandInChat, *arguments: str) -> str:
    """Return what `langnorm ask` prints when `chat` answers."""
    monkeypatch.setattr(loading, "load_chat", lambda **_: chat)
    result = run("ask", QUESTION, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_help_imports_nothing_heavy() -> None:
    """Help is quick: neither torch nor transformers nor LangChain is imported for it."""
    command = [sys.executable, "-X", "importtime", "-m", "langnorm", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment())
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "ask" in done.stdout
    assert "typer" in imported
    assert not imported & {"torch", "transformers", "tokenizers", "langchain_core"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments: list[str]) -> None:
    """Without a command, `langnorm` prints its help and is content."""
    result = run(*arguments)
    assert result.exit_code == 0
    assert "ask" in result.stdout
    assert "--version" in result.stdout


def test_version() -> None:
    """`--version` prints the version of the package."""
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"langnorm {__version__}\n")


def test_json_is_the_whole_message() -> None:
    """`--json` prints one JSON object with text, usage and the norms of each step, and nothing else."""
    result = ask(QUESTION, "--json", "--layers", "9,3,-1")
    fields = json.loads(result.stdout)
    stored = fields["response_metadata"]["langnorm"]
    assert result.stderr == ""
    assert fields["type"] == "ai"
    assert fields["usage_metadata"]["output_tokens"] == stored["tokens"] <= 40
    assert stored["layers"] == [3, 9, 11]
    assert stored["steps"]
    assert all(len(step["mean"]) == 3 and min(step["mean"]) > 0 for step in stored["steps"])


def test_a_line_shows_every_step() -> None:
    """A bar of ten characters for its intensity, the intensity, and its text."""
    fields = json.loads(ask(QUESTION, "--json").stdout)
    trace = NormTrace.from_dict(fields["response_metadata"]["langnorm"])
    head, *lines = ask(QUESTION).stdout.split("\n\nstep  ")[1].split("\n\n")[0].splitlines()
    assert head == "intensity"
    assert len(lines) == len(trace.steps)
    for number, (line, step) in enumerate(zip(lines, trace.steps, strict=True), 1):
        found, intensity = re.match(r" *(\d+)  (▇*)·*  ?([\d.]+)", line), step.intensity
        assert found is not None
        assert intensity is not None
        assert (int(found[1]), float(found[3])) == (number, pytest.approx(intensity, abs=0.005))
        assert len(found[2]) == round(10 * intensity)


def test_table_shows_every_step() -> None:
    """Text and table agree with the message: number, kind, tokens, norms and text of each step."""
    fields = json.loads(ask(QUESTION, "--json").stdout)
    trace = NormTrace.from_dict(fields["response_metadata"]["langnorm"])
    texts = {"reasoning": fields["additional_kwargs"].get("reasoning_content", ""), "answer": fields["content"]}

    output = ask(QUESTION, "--verbose").stdout

    head = "\n\n".join(filter(None, texts.values()))
    assert output.startswith(head + "\n\nstep  ")
    header, *rows = rows_of(output)
    assert header == ["step", "kind", "tokens", "layer 9", "layer 10", "intensity", "low", "text"]
    assert len(rows) == len(trace.steps)
    for number, (row, step) in enumerate(zip(rows, trace.steps, strict=True), 1):
        assert row[:3] == [str(number), step.kind, f"{step.start}-{step.end}"]
        assert [float(cell) for cell in row[3:5]] == pytest.approx(step.mean, rel=1e-3)
        assert float(row[5]) == pytest.approx(step.intensity, abs=0.005)
        assert (row[6] == "low") is step.low
        span = " ".join(texts[step.kind][slice(*step.text_span)].split())
        assert span.startswith(re.split(" {2,}", row[-1])[0].removesuffix("…"))
    last = output.splitlines()[-1]
    assert re.match(rf"abacus: {trace.tokens} tokens? in [\d.]+ s \([\d.]+ tokens/s\)", last)


def test_output_is_plain_where_there_is_no_terminal() -> None:
    """In a pipe there are no escape codes, and nothing is said on stderr."""
    result = ask(QUESTION)
    assert ESCAPE not in result.output
    assert result.stderr == ""


def test_all_layers_are_shown_on_a_narrow_terminal() -> None:
    """Layers that do not fit beside the steps follow in tables of their own, none wider than the terminal."""
    output = ask(QUESTION, "--layers", "all", "--verbose", env={"COLUMNS": "60"}).stdout
    table = output[output.index("step  ") :].splitlines()
    assert max(map(len, table)) <= 60
    assert re.findall(r"layer \d+", output) == [f"layer {i}" for i in range(12)]


def test_question_comes_from_standard_input() -> None:
    """With `-` the question is what is piped in, without the line break at its end."""
    piped, given = (
        json.loads(result.stdout) for result in (ask("-", "--json", input=f"{QUESTION}\n"), ask(QUESTION, "--json"))
    )
    assert piped["usage_metadata"] == given["usage_metadata"]
    assert piped["content"] == given["content"]


def test_options_reach_the_model() -> None:
    """A system message lengthens the prompt, a seed repeats an answer, and `--no-think` leaves out the reasoning."""
    plain = json.loads(ask(QUESTION, "--json", "--no-think").stdout)
    brief = json.loads(ask(QUESTION, "--json", "--system", "You are brief.").stdout)
    first, second = (json.loads(ask(QUESTION, "--json", "--temperature", "5", "--seed", "7").stdout) for _ in range(2))
    assert brief["usage_metadata"]["input_tokens"] > first["usage_metadata"]["input_tokens"]
    assert "reasoning_content" not in plain["additional_kwargs"]
    assert first["content"] == second["content"]
    assert first["additional_kwargs"] == second["additional_kwargs"]


def test_the_best_of_several_is_said_to_be_one() -> None:
    """Below the table stand the candidate, the votes for its answer, and what to be wary of."""
    output = ask(QUESTION, "--select", "3", "--seed", "7").stdout
    assert re.search(r"Candidate [123] of 3; \d+% of the votes are for its answer: -?\d+", output)
    cut_off = run("ask", QUESTION, "--select", "2", "--max-tokens", "3").stdout
    assert "2 of 2 were cut off at max_tokens. They have no vote: raise `--max-tokens`." in " ".join(cut_off.split())
    message = json.loads(ask(QUESTION, "--select", "2", "--json").stdout)
    assert len(message["response_metadata"]["langnorm"]["selection"]["candidates"]) == 2


def test_answer_at_the_limit_is_said_to_be_cut_off() -> None:
    """The last line says that `--max-tokens` ended the answer, also when there was no step yet."""
    result = run("ask", QUESTION, "--max-tokens", "1")
    assert result.exit_code == 0
    assert "abacus: 1 token in " in result.stdout
    assert result.stdout.endswith("cut off at the token limit\n")


def test_calibrate_writes_a_profile_that_fits(tmp_path: Path) -> None:
    """And reports what it has seen; nothing else is left in the folder."""
    (tmp_path / "prompts.txt").write_text("What is 3 + 4?\nHello!\n")
    out = tmp_path / "p.json"
    options = ("--num-tokens", "30", "--max-tokens", "12")
    result = run("calibrate", "--prompts", str(tmp_path / "prompts.txt"), "--out", str(out), *options)
    assert result.exit_code == 0, result.output
    assert re.match(r".*p\.json: \d+ tokens, 12 layers of abacus\n", result.stdout)
    assert "It ended with the batch that reached 30 tokens." in result.stdout
    assert "Above the IQR threshold: " in result.stdout
    NormProfile.load(out).check(ChatLangNorm().loaded_engine().identity)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.json", "p.tokens", "prompts.txt"]


@pytest.mark.parametrize(
    ("prompts", "out", "message"),
    [
        ("absent.txt", "p.json", "absent.txt` cannot be read"),
        ("prompts.txt", "absent/p.json", "cannot be written"),
        ("prompts.txt", "prompts.txt", "would write over the prompts"),
        ("prompts.txt", "notes.json", "notes.tokens` is no table of tokens, and one would take its place"),
    ],
)
def test_calibrate_refuses_bad_paths_before_it_starts(tmp_path: Path, prompts: str, out: str, message: str) -> None:
    """Neither the prompts nor the profile is found missing or in the way after an hour of work."""
    for name in ("prompts.txt", "notes.tokens"):
        (tmp_path / name).write_text("Hello!")
    result = run("calibrate", "--prompts", str(tmp_path / prompts), "--out", str(tmp_path / out))
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr)
    assert message in result.stderr


def test_text_of_the_model_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Square brackets and emoji names in a text are no markup, and control characters stay off the terminal."""
    step = NormStep(0, 5, "reasoning", (0, 26), (1.0, 2.0))
    output = show(monkeypatch, StandInChat("[bold]:smile:[/] \x1b[31m\x07 x\t1", "[/nothing]\r\nend", trace_of(step)))
    assert output.startswith("[bold]:smile:[/] \ufffd[31m\ufffd x")
    assert "\n\n[/nothing]\nend\n" in output
    assert output.count("[bold]:smile:[/]") == 2
    assert ESCAPE not in output


def test_intensity_is_shown_when_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns intensity and low are there only with values; a step without norms has dashes."""
    known = trace_of(
        NormStep(0, 5, "answer", (0, 3), mean=(81.26, 12345.6), intensity=0.05, low=True),
        NormStep(5, 9, "answer", (0, 3), mean=None, intensity=0.5, low=False),
        intensity=0.3,
    )
    header, first, second = rows_of(show(monkeypatch, StandInChat("", "one", known), "-v"))
    assert header == ["step", "kind", "tokens", "layer 3", "layer 4", "intensity", "low", "text"]
    assert first == ["1", "answer", "0-5", "81.26", "12346", "0.05", "low", "one"]
    assert second == ["2", "answer", "5-9", "-", "-", "0.50", "one"]

    unknown = trace_of(NormStep(0, 5, "answer", (0, 3), mean=(0.5, 0.25)))
    header, _ = rows_of(show(monkeypatch, StandInChat("", "one", unknown), "-v"))
    assert header == ["step", "kind", "tokens", "layer 3", "layer 4", "text"]


def test_lines_say_what_they_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without intensities steps are ranked among each other; one without norms has no bar; low ones say so."""
    steps = [NormStep(i, i + 1, "answer", (0, 3), mean) for i, mean in enumerate([(2.0, 9.0), None, (1.0, 9.0)])]
    output = show(monkeypatch, StandInChat("", "one", trace_of(*steps)))
    assert output.split("\n\nstep  ")[1].split("\n\n")[0].splitlines() == [
        "rank",
        "   1  ▇▇▇▇▇▇···· 0.62  one",
        "   2  -             -  one",
        "   3  ▇▇▇▇······ 0.38  one",
    ]
    low = NormStep(0, 5, "tool_call", (0, 3), (1.0, 2.0), intensity=0.05, low=True)
    output = show(monkeypatch, StandInChat("", "one", trace_of(low, intensity=0.05)))
    assert "   1  ·········· 0.05  low  (tool_call)\n" in output


def test_a_tool_call_is_shown_without_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its offsets are not those of the answer, and the message has not the call as the model wrote it."""
    calling = trace_of(
        NormStep(0, 5, "answer", (0, 3), mean=(0.5, 0.25)), NormStep(5, 9, "tool_call", (0, 3), mean=(0.5, 0.25))
    )
    _, answer, call = rows_of(show(monkeypatch, StandInChat("", "one", calling), "-v"))
    assert answer == ["1", "answer", "0-5", "0.500", "0.250", "one"]
    assert call == ["2", "tool_call", "5-9", "0.500", "0.250"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["ask", QUESTION, "--max-token", "3"], "--max-tokens"),
        (["ask", QUESTION, "--max-tokens", "0"], "--max-tokens"),
        (["ask", QUESTION, "--temperature", "-1"], "--temperature"),
        (["ask", QUESTION, "--layers", "lte"], "late"),
        (["ask"], "question"),
        (["aks", QUESTION], "ask"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], hint: str) -> None:
    """A misspelt option or a value that is not allowed names what is, before anything is loaded."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert hint in result.stderr.lower()
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "The question is empty"),
        (["-"], "The question is empty"),
        ([QUESTION, "--layers", "99"], "Layer `99` is outside this model"),
        ([QUESTION, "--model", "no-such-model"], "`no-such-model` could not be loaded"),
        (["47 " * 3000], "leaves no room for an answer"),
    ],
)
def test_error_is_one_line(arguments: list[str], message: str) -> None:
    """What the user can mend ends with exit code 1 and one line on stderr, without a traceback."""
    result = run("ask", *arguments, input=" \n")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr)
    assert message in result.stderr


@posix
def test_ctrl_c_ends_an_answer_at_once() -> None:
    """Ctrl-C in the middle of an answer ends the process with 130 and no more than a line break on stderr."""
    with starting(*ENDLESS) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, b"\n")
    assert len(stdout) < 1000  # some tokens; the whole answer would fill the context of two thousand


@posix
def test_ctrl_c_ends_loading_at_once() -> None:
    """Ctrl-C on a terminal while the model loads ends with 130 and the cursor on a new line."""
    with on_terminal("ask", QUESTION) as (process, ours):
        read_terminal(ours, until=b"Loading abacus ...")
        process.send_signal(signal.SIGINT)
        rest = read_terminal(ours)
        assert process.wait(timeout=60) == 130
    assert "Traceback" not in rest
    assert rest.endswith(f"{ESCAPE}[?25h\r\n"), "the cursor is there again, on a new line"


@posix
def test_closed_pipe_ends_quietly() -> None:
    """When the reader of the output leaves, as `head -1` does, nothing is said and the process ends."""
    with starting(*ENDLESS) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


def test_forced_colors_leave_json_alone() -> None:
    """FORCE_COLOR colors the table in a pipe, but never the JSON, which programs read."""
    forced = {"FORCE_COLOR": "1", "TERM": "xterm"}
    assert f"{ESCAPE}[36m" in ask(QUESTION, "-v", env=forced).stdout
    assert ESCAPE not in ask(QUESTION, "--json", env=forced).stdout


@posix
def test_terminal_without_colors() -> None:
    """With NO_COLOR a narrow terminal shows the reasoning dimmed and no color; the loading line is gone at the end."""
    with on_terminal("ask", QUESTION, "--max-tokens", "40", COLUMNS="60", NO_COLOR="1") as (process, ours):
        shown = read_terminal(ours)
        assert process.wait(timeout=60) == 0
    loading, _, answer = shown.partition(f"\r{ESCAPE}[2K")
    assert "Loading abacus ..." in loading
    assert f"{ESCAPE}[2m" in answer
    assert set(re.findall(rf"{ESCAPE}\[([\d;]*)m", answer)) <= {"0", "1", "2"}
    assert answer.rstrip().endswith(f"{ESCAPE}[0m")
    lines = re.sub(rf"{ESCAPE}\[\d+m", "", answer).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("step")) :]
    assert max(map(len, table)) <= 60

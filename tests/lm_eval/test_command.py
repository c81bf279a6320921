"""`langnorm lm-eval` runs the harness."""

from __future__ import annotations

import functools
import json
import sys

import pytest
from typer.testing import CliRunner

from langnorm.cli import app
from tests.lm_eval.conftest import TASKS


@pytest.fixture
def run(monkeypatch):
    """Returns a function that runs the command with some arguments, on local tasks only."""
    import lm_eval.tasks
    import lm_eval.utils

    only_local = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", only_local)
    monkeypatch.setattr(lm_eval.utils, "setup_logging", lambda: None)  # its handler would keep a stream of this test
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.chdir(TASKS)
    return lambda *arguments: CliRunner().invoke(app, ["lm-eval", *arguments])


def test_tasks_are_run_with_our_model(run, tmp_path) -> None:
    """Options of an intervention and a generation are given on the command line, and the results are stored."""
    done = run(
        *("--tasks", "langnorm_sums", "--include_path", str(TASKS), "--apply_chat_template", "--limit", "2"),
        *("--model_args", "pretrained=abacus", "recursion.max_extra=1", "--gen_kwargs", "max_gen_toks=64"),
        *("--output_path", str(tmp_path / "results.json"), "--batch_size", "auto"),
    )
    assert done.exit_code == 0, done.output
    assert "langnorm ({'pretrained': 'abacus'" in done.output
    (path,) = tmp_path.glob("results*.json")
    config = json.loads(path.read_text())["config"]
    assert config["model"] == "langnorm"
    assert config["langnorm"]["interventions"]["recursion"]["answers"] == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--model_args", "pretraned=abacus", "--tasks", "langnorm_sums"), "Did you mean `pretrained`?"),
        (("--model_args", "recursion.max_extras=1", "--tasks", "langnorm_sums"), "Did you mean `max_extra`?"),
        (("--tasks", "langnorm_sum"), "Error: Tasks not found: langnorm_sum"),
        (("--limit", "2"), "Error: No tasks specified"),
        (("--model", "langnrm", "--tasks", "langnorm_sums"), "Error: Attempted to load model 'langnrm'"),
        (("--model_args", 'recursion={"a":}', "--tasks", "langnorm_sums"), "Error: Invalid JSON"),
    ],
)
def test_mistakes_are_said_in_a_line(arguments, error, run) -> None:
    """The harness' own and ours, without a traceback."""
    done = run("run", "--include_path", str(TASKS), *arguments)
    assert done.exit_code == 1
    assert error in done.output
    assert isinstance(done.exception, SystemExit)


def test_arguments_of_the_model_are_checked_first(run, monkeypatch) -> None:
    """Before the harness looks at its tasks, which takes a minute."""
    import lm_eval.tasks

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", None)
    done = run("--model_args", "recursion.max_extra=0.5", "--tasks", "gsm8k")
    assert "Error: `max_extra=0.5` of `recursion` is not allowed" in done.output


def test_the_harness_explains_itself(run) -> None:
    """Help is its own, and so are its other commands."""
    assert "lm-eval ls tasks" in run("--help").output
    assert "--gen_kwargs" in run("run", "--help").output

"""`langnorm lm-eval` hands its arguments over to the harness."""

from __future__ import annotations

import importlib.util

import pytest
from typer.testing import CliRunner

from langnorm.cli import app
from langnorm.cli.lm_eval import with_own_model


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tasks", "x"], ["--model", "langnorm", "--tasks", "x"]),
        (["run", "--tasks", "x"], ["run", "--model", "langnorm", "--tasks", "x"]),
        (["run", "--model", "hf"], ["run", "--model", "hf"]),
        (["-M=hf"], ["-M=hf"]),
        (["--config", "x.yaml"], ["--config", "x.yaml"]),
        (["ls", "tasks"], ["ls", "tasks"]),
        (["run"], ["run"]),
        (["run", "-h"], ["run", "-h"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)
def test_the_model_is_ours_unless_another_is_named(arguments, expected) -> None:
    """Where tasks are run; other commands get their arguments as they are."""
    assert with_own_model(arguments) == expected


def test_without_the_harness_it_is_said_what_to_install(monkeypatch) -> None:
    """In one line."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else find(name))
    done = CliRunner().invoke(app, ["lm-eval", "run", "--tasks", "gsm8k"])
    assert done.exit_code == 1
    assert 'pip install "langnorm[lm-eval]"' in done.output

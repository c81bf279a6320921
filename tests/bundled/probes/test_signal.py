"""The first diagnosis of Abacus, and its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langnorm import ChatLangNorm
from langnorm.cli import app
from langnorm.errors import OptionError
from langnorm.probes.problems import read_problems
from langnorm.probes.signal import probe_signal


def test_the_command_writes_a_page_and_its_figures(tmp_path: Path) -> None:
    """Of all layers, with as many tokens as were run, and both kinds of answers."""
    out = tmp_path / "page.html"
    options = ["--num-tasks", "2", "--max-tokens", "16", "--seeds", "4,5"]
    done = CliRunner().invoke(app, ["probe", "signal", "--out", str(out), *options])
    assert done.exit_code == 0, done.output
    assert out.read_text().startswith("<!doctype html>")
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["num_answers"] == {"reasoned": 4, "direct": 4}
    assert figures["num_tokens"]["direct"] < figures["num_tokens"]["reasoned"] <= 4 * 15
    assert [row["layer"] for row in figures["layers"]] == list(range(12))
    assert 0.5 < figures["layers"][4]["share_explained_by_token"] <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "page.json"]


def test_one_problem_is_too_few() -> None:
    """There would be no interval."""
    with pytest.raises(OptionError, match="two problems or more"):
        probe_signal(ChatLangNorm(), read_problems("abacus", 1), is_quiet=True)

"""A causal check of Abacus: what its runs did, that it goes on where it was stopped, and its command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langnorm import ChatLangNorm
from langnorm.cli import app
from langnorm.errors import OptionError
from langnorm.probes import causal
from langnorm.probes.causal import CausalCheck, run_causal_check
from langnorm.probes.problems import read_problems

CHECK = CausalCheck(layers=[[8, 9]], quantiles=[0.9], seeds=[5], max_tokens=20)


@pytest.fixture(scope="module")
def chat() -> ChatLangNorm:
    """Return Abacus."""
    return ChatLangNorm()


def test_controls_shrink_as_many_states(chat: ChatLangNorm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each layer, whatever their norms; and a check that was stopped goes on and finds the same."""
    tasks = read_problems("abacus", 3)
    result = run_causal_check(chat, tasks, CHECK, is_quiet=True)
    arm = result.arms[0]
    num_exact = 0
    for control in ("random", "same_class"):
        for high, outcome in zip(arm.outcomes["high"], arm.outcomes[control], strict=True):
            assert outcome.num_planned in (high.num_shrunk, None)
            if outcome.num_shrunk == high.num_shrunk:
                num_exact += 1
                assert {layer: len(steps) for layer, steps in outcome.shrunk.items()} == {
                    layer: len(steps) for layer, steps in high.shrunk.items()
                }
    assert num_exact >= 5
    assert sum(outcome.num_shrunk for outcome in arm.outcomes["high"]) > 3

    store, ask_all, calls = tmp_path / "store", causal.ask_all, []

    def stopped(*arguments: Any) -> Any:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return ask_all(*arguments)

    monkeypatch.setattr(causal, "ask_all", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_causal_check(chat, tasks, CHECK, store=store, is_quiet=True)
    monkeypatch.undo()
    monkeypatch.setattr(causal, "ask_all", counting(ask_all, calls := []))
    again = run_causal_check(chat, tasks, CHECK, store=store, is_quiet=True)
    assert again.baseline == result.baseline
    assert again.arms[0].outcomes == arm.outcomes
    assert again.arms[0].thresholds == pytest.approx(
        arm.thresholds, rel=1e-5
    )  # batches of another order round otherwise
    assert all(asked.settings["suppression"].mode == "mask" for asked in calls[0])
    calls.clear()
    alone = run_causal_check(chat, tasks, replace(CHECK, controls=["random"]), store=store, is_quiet=True)
    assert not calls  # what is there serves a check with other controls
    assert alone.arms[0].outcomes == {name: again.arms[0].outcomes[name] for name in ("high", "random")}
    corrected = replace(tasks[2], item=replace(tasks[2].item, answer="-1"))
    asked_otherwise = replace(tasks[2], task=replace(tasks[2].task, template="What is this? {question}"))
    for others in (tasks[:2], [*tasks[:2], corrected], [*tasks[:2], asked_otherwise]):
        with pytest.raises(OptionError, match="other options, problems or model"):
            run_causal_check(chat, others, CHECK, store=store, is_quiet=True)


def counting(ask_all: Callable[..., Any], calls: list[Any]) -> Callable[..., Any]:
    """Return a function that notes what is asked."""

    def ask(chat: Any, asked: Any, *others: Any) -> Any:
        calls.append(asked)
        return ask_all(chat, asked, *others)

    return ask


def test_one_problem_is_too_few(chat: ChatLangNorm) -> None:
    """There would be no interval."""
    with pytest.raises(OptionError, match="two problems or more"):
        run_causal_check(chat, read_problems("abacus", 1), CHECK, is_quiet=True)


def test_the_command_writes_a_page_and_its_figures(tmp_path: Path) -> None:
    """And leaves nothing else; mistakes are named before anything is run."""
    out = tmp_path / "page.md"
    options = ["--num-tasks", "2", "--seeds", "0", "--quantiles", "0.9", "--layers", "9", "--max-tokens", "12"]
    done = CliRunner().invoke(app, ["probe", "causal", "--out", str(out), *options])
    assert done.exit_code == 0, done.output
    assert out.read_text().startswith("# Causal check: abacus on abacus")
    assert json.loads(out.with_suffix(".json").read_text())["arms"][0]["layers"] == [9]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.json", "page.md"]

    problems = tmp_path / "mine.json"
    problems.write_text(2 * '{"question": "What is 3 + 4?", "answer": "7"}\n')
    for wrong, said in (
        (["--tasks", str(problems), "--out", str(tmp_path / "mine.md")], "would write over the problems"),
        (["--quantiles", "0.9,x"], "no list of numbers"),
        (["--controls", "rando"], "`--controls rando` is not allowed"),
        (["--quantiles", "2"], "`--quantiles 2.0` is not allowed"),
        (["--layers", "lat"], "Did you mean `late`"),
        (["--tasks", "nowhere.jsonl"], "cannot be read"),
        (["--out", str(tmp_path / "no" / "page.md")], "cannot be written"),
        (["--out", str(tmp_path / "page.html")], "is to be a page of Markdown"),
    ):
        done = CliRunner().invoke(app, ["probe", "causal", "--out", str(out), *options, *wrong], env={"COLUMNS": "300"})
        assert done.exit_code, done.output
        assert said in " ".join(done.output.split())

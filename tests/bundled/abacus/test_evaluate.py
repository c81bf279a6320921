"""What the model card measures, on the bundled model."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import langnorm.abacus
from langnorm.abacus.evaluate import main, measure, table


def test_a_line_is_measured_on_held_out_problems() -> None:
    """Greedy lines give an accuracy, the sampled one the mean number of distinct answers too."""
    tokenizer = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    model = AutoModelForCausalLM.from_pretrained(langnorm.abacus.path())
    assert measure(model, tokenizer, "tools_known", 8, "dev")["tools_known"] > 0.5
    assert measure(model, tokenizer, "easy_greedy", 8, "dev")["easy_greedy"] > 0.5
    sampled = measure(model, tokenizer, "hard_sampled", 1, "dev")
    assert 1 <= sampled["hard_distinct"] <= 8


def test_figures_are_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the card and beside it, where the figures of other lines stay."""
    model = tmp_path / "model"
    shutil.copytree(langnorm.abacus.path(), model)
    results = model / "results.json"
    results.write_text(json.dumps({"hard_greedy": 0.25}))
    arguments = ["--model", str(model), "--num-problems", "2", "--split", "dev", "--only", "easy_greedy"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    main()
    assert json.loads(results.read_text()) == {"hard_greedy": 0.25}
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments, "--write"])
    main()
    figures = json.loads(results.read_text())
    assert figures.keys() == {"hard_greedy", "easy_greedy"}
    assert table({"easy_greedy": figures["easy_greedy"]}) in capsys.readouterr().out
    assert table(figures) in (model / "README.md").read_text()

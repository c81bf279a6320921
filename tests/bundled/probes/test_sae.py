"""SAEs of Abacus' own states: trained, written, and taken from a folder; and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from langnorm import ChatLangNorm
from langnorm.cli import app
from langnorm.errors import ModelError, OptionError
from langnorm.probes import sae_probe, sae_training
from langnorm.probes.answering import ask_all, record_states
from langnorm.probes.problems import read_problems
from langnorm.probes.sae import SAEConfig, SparseAutoencoder, load_sae, save_sae
from langnorm.probes.sae_page import sae_page
from langnorm.probes.sae_probe import SAEProbe, probe_sae
from langnorm.probes.sae_training import CHECKPOINT_FILE, SAETraining

TRAINING = SAETraining(num_steps=20, batch_size=32, dead_steps=5, num_auxiliary=8)
PROBE = SAEProbe(layers=[9], expansion=1, k=8, training=TRAINING, max_tokens=16)


@pytest.fixture(scope="module")
def chat() -> ChatLangNorm:
    """Return Abacus."""
    return ChatLangNorm()


def test_states_are_those_of_the_same_answers(chat: ChatLangNorm) -> None:
    """Their norms are the norms that messages report."""
    task = read_problems("abacus", 1)[0]
    asked = [task.asked({"temperature": 0, "max_tokens": 9, "layers": [3, 9]})]
    completion, message = record_states(chat, asked, [3, 9])[0], ask_all(chat, asked)[0]
    assert tuple(completion.token_ids) == message.trace.token_ids
    assert completion.states is not None
    norms = completion.states.float().norm(dim=-1)
    torch.testing.assert_close(norms, torch.tensor(message.trace.token_norms), rtol=1e-4, atol=1e-4)


def test_an_sae_is_trained_reported_on_and_written(chat: ChatLangNorm, tmp_path: Path) -> None:
    """And one that is given in its format is reported on just the same."""
    tasks = read_problems("abacus", 5)
    report = probe_sae(chat, tasks, tmp_path, PROBE, is_quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["layer-9"]
    assert sorted(path.name for path in (tmp_path / "layer-9").iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    row = report["layers"][0]
    assert row["held_out"]["num_active"] <= 8
    assert row["bound"]["above_bound_on_states"] == 0
    assert row["num_tokens"] == row["held_out"]["num_states"]
    assert (report["num_problems"], report["num_held_out"]) == (5, 2)
    assert report["training"]["num_steps"] == 20
    assert report["answers"] == {"seeds": [0], "temperature": 0.7, "max_tokens": 16}
    assert row["k"] == 8
    assert 0 < row["training_states"]["num_states"] < sum(report["num_tokens"].values())
    assert [curve["layer"] for curve in report["norms_on_the_same_tokens"]] == [9]
    assert row["on_the_same_tokens"]["num_tokens"] <= row["num_tokens"]
    for num_direct, is_said in ((40, False), (90, True)):
        page = sae_page({**report, "num_tokens": {"reasoned": 100, "direct": num_direct}}, "a title")
        assert ("Asked to answer at once, this model does not" in page) == is_said
    config = load_sae(tmp_path / "layer-9").config
    assert (config.d_sae, config.k, config.metadata["hook_name"]) == (config.d_in, 8, "blocks.9.hook_resid_post")

    again = probe_sae(chat, tasks, tmp_path, PROBE, published=tmp_path / "layer-9", is_quiet=True)
    found = again["layers"][0]  # the same but for rounding, which the order of a batch decides
    assert again["num_tokens"] == report["num_tokens"]
    assert found["held_out"] == pytest.approx(row["held_out"], rel=1e-3)
    assert found["median_norm"] == pytest.approx(row["median_norm"], rel=1e-4)

    save_sae(SparseAutoencoder(SAEConfig(12, 8, "topk", 2)), tmp_path / "other")
    with pytest.raises(OptionError, match="states of this model, which have"):
        probe_sae(chat, tasks, tmp_path, PROBE, published=tmp_path / "other", is_quiet=True)
    several = SAEProbe(layers="late")
    with pytest.raises(OptionError, match="one layer, that of the SAE"):
        probe_sae(chat, tasks, tmp_path, several, published=tmp_path / "other", is_quiet=True)
    with pytest.raises(OptionError, match="four problems or more"):
        probe_sae(chat, tasks[:3], tmp_path, PROBE, is_quiet=True)


def test_a_run_that_is_stopped_trains_no_layer_again(chat: ChatLangNorm, tmp_path: Path, monkeypatch) -> None:
    """Checkpoints stay until the report is whole, and are those of the same answers only."""
    tasks = read_problems("abacus", 4)
    probe = SAEProbe(layers=[3, 9], expansion=1, k=8, training=TRAINING, max_tokens=8)
    monkeypatch.setattr(sae_probe, "norm_curves", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        probe_sae(chat, tasks, tmp_path, probe, is_quiet=True)
    with pytest.raises(ModelError, match="a training with other options"):
        probe_sae(chat, tasks, tmp_path, replace(probe, seeds=[1]), is_quiet=True)
    with pytest.raises(ModelError, match="a training with other options"):
        probe_sae(chat, read_problems("abacus", 5)[1:], tmp_path, probe, is_quiet=True)
    monkeypatch.undo()
    steps = []
    monkeypatch.setattr(sae_training._Trainer, "take_step", lambda *_: steps.append(1))
    probe_sae(chat, tasks, tmp_path, probe, is_quiet=True)
    assert not steps
    assert not [*tmp_path.rglob(CHECKPOINT_FILE)]


@pytest.mark.parametrize(
    "options",
    [{"expansion": 0}, {"k": 0}, {"held_out": 1}, {"seeds": []}, {"architecture": "jumprelu"}, {"max_tokens": 1}],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    """Before a model is loaded."""
    with pytest.raises(OptionError, match="Use"):
        SAEProbe(**options)


def test_the_command_writes_a_folder(tmp_path: Path) -> None:
    """With a page, figures and the SAE, trained where the model is; mistakes are named in a line."""
    out = tmp_path / "new"
    options = ["--num-tasks", "4", "--max-tokens", "12", "--steps", "5", "--step-states", "16", "--k", "4"]
    done = CliRunner().invoke(app, ["probe", "sae", "--out", str(out), *options, "--device", "auto"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["layer-10", "report.json", "report.md"]
    assert (out / "report.md").read_text().startswith("# SAE: abacus on abacus")
    assert json.loads((out / "report.json").read_text())["layers"][0]["layer"] == 10
    (tmp_path / "file").write_text("")
    for wrong, said in (
        (["--architecture", "top-k"], "Did you mean `topk`"),
        (["--sae", str(tmp_path)], "has no SAE in SAELens' format"),
        (["--seeds", "one"], "no list of numbers"),
        (["--out", str(tmp_path / "file")], "cannot be made"),
        (["--k", "100000"], "is not allowed"),
    ):
        done = CliRunner().invoke(app, ["probe", "sae", "--out", str(out), *options, *wrong], env={"COLUMNS": "300"})
        assert done.exit_code, done.output
        assert said in " ".join(done.output.split())

"""Training: the optimizer does what its papers say, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.abacus.data import corpus
from langnorm.abacus.data.base import Example
from langnorm.abacus.muon import Muon, orthogonalize
from langnorm.abacus.train import Phase, Run, batches, row_of

TOKENIZER: Any = AutoTokenizer.from_pretrained(langnorm.abacus.path())


def test_orthogonalize_brings_singular_values_near_one() -> None:
    """Directions stay, sizes are made equal, for wide, tall and square matrices."""
    for rows, columns in ((16, 48), (48, 16), (32, 32)):
        matrices = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(0))
        left, _, right = torch.linalg.svd(matrices, full_matrices=False)
        result = orthogonalize(matrices)
        assert torch.linalg.svdvals(result).sub(1).abs().max() < 0.2
        assert torch.linalg.matrix_norm(result - left @ right).max() < 0.2 * min(rows, columns) ** 0.5


def test_muon_steps_against_the_gradient() -> None:
    """A step moves every singular direction of the gradient by the learning rate, after decay."""
    weight = torch.nn.Parameter(torch.eye(8))
    weight.grad = torch.diag(torch.arange(1.0, 9.0))
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(weight, torch.eye(8) * (1 - 0.1 * 0.5 - 0.1), atol=0.02)


def test_learning_rates_rise_stay_and_fall() -> None:
    """In each phase a short rise, a plateau, and a fall to zero over its last share."""
    run = Run((Phase(1_000 * 6_144, "broad", 1.0, 0.45), Phase(500 * 6_144, "practice", 0.5, 1.0)))
    scales = [run.lr_scale(step) for step in range(run.num_steps)]
    assert len(scales) == 1_500
    assert scales[0] < 0.05
    assert scales[100] == scales[540] == 1.0
    assert 0.45 < scales[775] < 0.55
    assert 0 < scales[999] < 0.01
    assert scales[1_000] < 0.05
    assert 0.24 < scales[1_250] < 0.26
    assert 0 < scales[-1] < 0.01
    assert replace(run, scale=0.5).num_steps == 750


def test_all_that_the_assistant_says_is_learnt() -> None:
    """Earlier turns of the assistant weigh as much as the last one; the rest weighs a tenth."""
    messages = (
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye!"},
        {"role": "assistant", "content": "Goodbye!"},
    )
    row = row_of(TOKENIZER, Example("chat", messages, enable_thinking=False))
    learnt = TOKENIZER.decode([i for i, w in zip(row.ids, row.weights, strict=True) if w == 1.0])
    assert learnt == "Hello!<|im_end|>Goodbye!<|im_end|>\n"
    assert set(row.weights) == {0.1, 1.0}


def test_batches_fit_their_budget() -> None:
    """A batch, padding included, is at most a process' share of a step; ranks and seeds differ."""
    run = Run(tokens_per_step=2_048)
    stream = batches(run, TOKENIZER, 0)
    for _ in range(15):
        batch = next(stream)
        assert len(batch) == 1 or len(batch) * max(len(row.ids) for row in batch) <= 1_024
    assert next(batches(run, TOKENIZER, 0, 14)) == batch
    assert next(batches(run, TOKENIZER, 0)) != next(batches(run, TOKENIZER, 1))


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Two processes, killed after a checkpoint and started again, reach the weights of an unbroken run."""
    program = (
        "import sys, pathlib, langnorm.abacus.train as t\n"
        "t._CHECKPOINT_STEPS = 3\n"
        "saved = t.save_model\n"
        "t.save_model = lambda model, run: saved(model, run, pathlib.Path(sys.argv[2]))\n"
        "save = t._Checkpoint.save\n"
        "def stop(self, step, *rest):\n"
        "    save(self, step, *rest)\n"
        "    if sys.argv[1] == 'stop': raise SystemExit(3)\n"
        "t._Checkpoint.save = stop\n"
        "phases = (t.Phase(2 * 512, 'broad', 1.0, 0.5), t.Phase(3 * 512, 'practice', 1.0, 1.0))\n"
        "run = t.Run(phases, tokens_per_step=512, num_processes=1, num_layers=2, hidden_size=64)\n"
        "pathlib.Path(sys.argv[3]).mkdir(exist_ok=True)\n"
        "t._train_process(0, run, pathlib.Path(sys.argv[3]), int(sys.argv[4]))\n"
    )

    def run(mode: str, out: str, folder: str, port: int) -> int:
        command = [sys.executable, "-c", program, mode, tmp_path / out, tmp_path / folder, str(port)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    assert run("go", "unbroken", "a", 29_601) == 0
    assert run("stop", "broken", "b", 29_602) == 3
    assert run("go", "broken", "b", 29_603) == 0
    assert (tmp_path / "broken/model.safetensors").read_bytes() == (
        tmp_path / "unbroken/model.safetensors"
    ).read_bytes()
    assert json.loads((tmp_path / "broken/config.json").read_text())["langnorm_run"]["num_layers"] == 2


def test_training_never_draws_a_held_out_problem() -> None:
    """The trainer's corpus and the evaluation's problems have nothing in common."""
    import random

    rng = random.Random("0/0/0")
    seen = {corpus.problem_of(corpus.draw(rng, "train")) for _ in range(2_000)}
    from langnorm.abacus.data import arithmetic

    held_out = {corpus.problem_of(e) for e in corpus.held_out(arithmetic.draw, 200)}
    assert not seen & held_out

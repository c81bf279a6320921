"""Training: the optimizer does what its papers say, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.abacus import train
from langnorm.abacus.data import corpus
from langnorm.abacus.lessons import Row
from langnorm.abacus.muon import Muon, orthogonalize
from langnorm.abacus.schedule import Run
from langnorm.abacus.train import batches, padded

TOKENIZER: Any = AutoTokenizer.from_pretrained(langnorm.abacus.path())
SHIPPED = load_file(langnorm.abacus.path() / "model.safetensors")


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


def test_batches_fit_their_budget() -> None:
    """A batch, padding included, is at most a process' share of a step; ranks and seeds differ."""
    run = Run(tokens_per_step=2_048, num_processes=2, pad_multiple=1)
    stream = batches(run, TOKENIZER, 0)
    for _ in range(15):
        batch = next(stream)
        assert len(batch) == 1 or len(batch) * max(len(row.ids) for row in batch) <= 1_024
    assert next(batches(run, TOKENIZER, 0, 14)) == batch
    assert next(batches(run, TOKENIZER, 0)) != next(batches(run, TOKENIZER, 1))


def test_batches_fit_their_budget_padded() -> None:
    """Where rows are padded to a multiple, the padding counts."""
    run = Run(tokens_per_step=2_048, pad_multiple=64)
    for batch in islice(batches(run, TOKENIZER, 0), 15):
        assert len(batch) == 1 or len(batch) * run.padded(max(len(row.ids) for row in batch)) <= 2_048


def test_every_step_has_a_batch() -> None:
    """Also where many rows are longer than a batch should be."""
    run = Run(tokens_per_step=256, num_tokens=256 * 50)
    assert len(list(batches(run, TOKENIZER, 0))) == run.num_steps == 50
    assert len(list(batches(run, TOKENIZER, 0, 17))) == 33


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # workers draw, and no more
def test_batches_are_the_same_for_any_number_of_workers() -> None:
    """Workers draw pools beforehand, which come in their order, from the first step that is asked for."""
    run = Run(tokens_per_step=512, num_tokens=512 * 40)
    expected = list(batches(run, TOKENIZER, 0, 5))
    assert list(batches(run, TOKENIZER, 0, 5, num_workers=2)) == expected


def test_padding_has_no_weight() -> None:
    """Ids and weights are filled up on the right."""
    ids, weights = padded([Row([5, 6, 7], [0.1, 0.1, 1.0]), Row([8], [1.0])], 4, 99)
    assert ids.tolist() == [[5, 6, 7, 99], [8, 99, 99, 99]]
    assert weights.tolist() == torch.tensor([[0.1, 0.1, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]).tolist()


def test_batches_of_a_step_are_alike_in_length() -> None:
    """Processes wait for each other after every step, so none is given long rows while another has short ones."""
    run = Run(tokens_per_step=12_288, num_processes=2, pad_multiple=1)

    def lengths(rank: int) -> list[int]:
        return [max(len(row.ids) for row in batch) for batch in islice(batches(run, TOKENIZER, rank), 12)]

    pairs = list(zip(lengths(0), lengths(1), strict=True))
    apart = sum(abs(a - b) for a, b in pairs)
    by_chance = sum(abs(a - b) for a, _ in pairs for _, b in pairs) / len(pairs)
    assert apart < by_chance / 2


@pytest.mark.parametrize(("num_processes", "precision"), [(1, "float32"), (2, "bfloat16")])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(num_processes: int, precision: str, tmp_path: Path) -> None:
    """Killed after a checkpoint and started again, it reaches the weights of an unbroken run."""
    program = (
        "import sys, pathlib, langnorm.abacus.train as t\n"
        "mode, out, folder, port, rank = *map(pathlib.Path, sys.argv[1:4]), int(sys.argv[4]), int(sys.argv[5])\n"
        "t._CHECKPOINT_STEPS = 3\n"
        "saved = t.save_model\n"
        "t.save_model = lambda model, runs: saved(model, runs, out)\n"
        "save = t._Checkpoint.save\n"
        "def stop(self, step, *rest):\n"
        "    save(self, step, *rest)\n"
        "    if mode.name == 'stop': raise SystemExit(3)\n"
        "t._Checkpoint.save = stop\n"
        f"run = t.Run(5 * 512, tokens_per_step=512, device='cpu', num_processes={num_processes}, num_layers=2,\n"
        f"            hidden_size=64, compiles=False, precision='{precision}')\n"
        "folder.mkdir(exist_ok=True)\n"
        "t._train_process(rank, run, folder, port)\n"
    )

    def run(mode: str, out: str, folder: str, port: int) -> int:
        """Return how process 0 ended. The others cannot go on without it."""
        command = [sys.executable, "-c", program, mode, tmp_path / out, tmp_path / folder, str(port)]
        first, *others = (
            subprocess.Popen([*command, str(rank)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for rank in range(num_processes)
        )
        code = first.wait()
        for other in others:
            if code:
                other.kill()
            other.wait()
        return code

    port = 29_600 + 10 * num_processes
    assert run("go", "unbroken", "a", port) == 0
    assert run("stop", "broken", "b", port + 1) == 3
    assert run("go", "broken", "b", port + 2) == 0
    assert (tmp_path / "broken/model.safetensors").read_bytes() == (
        tmp_path / "unbroken/model.safetensors"
    ).read_bytes()
    assert [made_by.num_layers for made_by in train.runs_of(tmp_path / "broken")] == [2]


def test_the_command_line_says_what_everything_is(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Every option has a help text and its default."""
    monkeypatch.setattr(sys, "argv", ["train", "--help"])
    with pytest.raises(SystemExit):
        train.main()
    text = " ".join(capsys.readouterr().out.split())
    assert "Single-threaded processes that share each step on the CPU; a GPU takes one. (default: 1)" in text
    assert "--no-compiles" in text


def test_a_run_can_begin_from_weights(tmp_path: Path) -> None:
    """It leaves them near where they were, and both runs are written down."""
    program = (
        "import sys, pathlib, langnorm.abacus.train as t\n"
        "out, weights = map(pathlib.Path, sys.argv[1:])\n"
        "saved = t.save_model\n"
        "t.save_model = lambda model, runs: saved(model, runs, out)\n"
        "run = t.Run(2 * 512, 512, matrix_lr=1e-6, vector_lr=1e-7, seed=1, device='cpu', compiles=False)\n"
        "out.mkdir()\n"
        "t._train_process(0, run, out, 29_641, weights)\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "out", langnorm.abacus.path()], check=True)
    *before, last = train.runs_of(tmp_path / "out")
    assert before == train.runs_of(langnorm.abacus.path())
    assert last.seed == 1
    for name, weight in load_file(tmp_path / "out/model.safetensors").items():
        torch.testing.assert_close(weight, SHIPPED[name], rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-processes", "2"), "one process does it all on `cuda`; leave out `--num-processes`"),
        ((), "there is no GPU here; give `--device cpu --num-processes 2`"),
        (("--device", "mps"), "invalid choice: 'mps'"),
        (("--precision", "float16"), "invalid choice: 'float16'"),
        (
            ("--device", "cpu", "--weights", "nowhere"),
            "no `model.safetensors` in `nowhere`; give `--weights` the folder",
        ),
    ],
)
def test_a_run_that_cannot_be_is_refused(
    options: Any, message: str, capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    """Before anything is trained or written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", *options])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        train.main()
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_training_never_draws_a_held_out_problem() -> None:
    """The trainer's corpus and the evaluation's problems have nothing in common."""
    import random

    rng = random.Random("0/0/0")
    seen = {corpus.problem_of(corpus.draw(rng, "train")) for _ in range(2_000)}
    from langnorm.abacus.data import arithmetic

    held_out = {corpus.problem_of(e) for e in corpus.held_out(arithmetic.draw, 200)}
    assert not seen & held_out

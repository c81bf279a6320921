"""Training: the optimizer does what its papers say, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.abacus import train
from langnorm.abacus.generator import corpus
from langnorm.abacus.train import batches
from langnorm.abacus.training.muon import Muon, orthogonalize
from langnorm.abacus.training.schedule import Phase, Run

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


def test_processes_share_the_work_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each makes its share of the updates; added up, as between processes, they are those of one process alone."""
    gradients = torch.randn(5, 8, 4, generator=torch.Generator().manual_seed(0))

    def step() -> list[torch.Tensor]:
        weights = [torch.nn.Parameter(torch.zeros(8, 4)) for _ in gradients]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.clone()
        Muon(weights, lr=1.0, momentum=0.0).step()
        return [weight.detach() for weight in weights]

    alone = step()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda _tensor: None)  # what others would add is left out
    shares = []
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append(step())
    for whole, first, second in zip(alone, *shares, strict=True):
        torch.testing.assert_close(first + second, whole)
        assert (first == 0).all() != (second == 0).all()


def test_batches_fit_their_budget() -> None:
    """A batch, padding included, is at most a process' share of a step; ranks and seeds differ."""
    run = Run(tokens_per_step=2_048)
    stream = batches(run, TOKENIZER, 0)
    for _ in range(15):
        batch = next(stream)
        assert len(batch) == 1 or len(batch) * max(len(conversation.ids) for conversation in batch) <= 1_024
    assert next(batches(run, TOKENIZER, 0, 14)) == batch
    assert next(batches(run, TOKENIZER, 0)) != next(batches(run, TOKENIZER, 1))


def test_batches_of_a_step_are_alike_in_length() -> None:
    """Processes wait for each other after every step, so none gets long conversations while another has short ones."""
    run = Run(tokens_per_step=12_288, scale=0.01)

    def lengths(rank: int) -> list[int]:
        return [
            max(len(conversation.ids) for conversation in batch) for batch in islice(batches(run, TOKENIZER, rank), 12)
        ]

    pairs = list(zip(lengths(0), lengths(1), strict=True))
    apart = sum(abs(a - b) for a, b in pairs)
    by_chance = sum(abs(a - b) for a, _ in pairs for _, b in pairs) / len(pairs)
    assert apart < by_chance / 2


BROAD = Phase(2 * 512, "broad", 1.0, 0.5)


@pytest.fixture
def trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Returns what trains a small model into a folder, as the only process of a run does."""
    save, threads, folders = train.save_model, torch.get_num_threads(), []
    monkeypatch.setattr(train, "save_model", lambda model, run: save(model, run, folders[-1]))
    monkeypatch.setattr(train, "_CHECKPOINT_STEPS", 3)

    def run(out: str, phases: tuple[Phase, ...], port: int, weights: Path | None = None) -> None:
        folders.append(tmp_path / out)
        (tmp_path / out / "run").mkdir(parents=True, exist_ok=True)
        sizes: dict[str, Any] = {"tokens_per_step": 512, "num_processes": 1, "num_layers": 2, "hidden_size": 64}
        try:
            train._train_process(0, Run(phases, **sizes, compiles=False), tmp_path / out / "run", port, weights)
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()

    yield run
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    trains: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended after a checkpoint and started again, it reaches the weights of an unbroken run."""
    phases = (BROAD, Phase(3 * 512, "choice", 1.0, 1.0, "thinking", is_fresh=True))
    trains("unbroken", phases, 29_601)
    save = train._Checkpoint.save

    def stop(*arguments: Any) -> None:
        save(*arguments)
        raise SystemExit

    monkeypatch.setattr(train._Checkpoint, "save", stop)
    with pytest.raises(SystemExit):
        trains("broken", phases, 29_602)
    monkeypatch.setattr(train._Checkpoint, "save", save)
    assert not (tmp_path / "broken/model.safetensors").exists()
    trains("broken", phases, 29_603)
    unbroken, broken = (tmp_path / out / "model.safetensors" for out in ("unbroken", "broken"))
    assert broken.read_bytes() == unbroken.read_bytes()
    assert json.loads((tmp_path / "broken/config.json").read_text())["langnorm_run"]["num_layers"] == 2


def test_a_fresh_phase_can_be_run_alone(trains: Callable[..., None], tmp_path: Path) -> None:
    """From the weights that the phases before would ship, the last phase reaches those of the whole run."""
    phases = (BROAD, Phase(2 * 512, "choice", 1.0, 1.0, "thinking", is_fresh=True))
    trains("all", phases, 29_604)
    trains("one", phases[:1], 29_605)
    trains("two", phases, 29_606, tmp_path / "one")
    assert (tmp_path / "two/model.safetensors").read_bytes() == (tmp_path / "all/model.safetensors").read_bytes()


def test_the_command_line_says_what_everything_is(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Every option has a help text and its default."""
    monkeypatch.setattr(sys, "argv", ["train", "--help"])
    with pytest.raises(SystemExit):
        train.main()
    text = " ".join(capsys.readouterr().out.split())
    assert "Single-threaded processes that share each step. (default: 2)" in text
    assert "--no-compiles" in text


def test_the_command_line_starts_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the run that was asked for; the folder is made, and Ctrl-C is no error."""
    started = []

    def spawn(function: Any, args: tuple[Any, ...], nprocs: int) -> None:
        started.append((function, args, nprocs))
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "spawn", spawn)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")  # so that they are put back
    folder = tmp_path / "a" / "run"
    monkeypatch.setattr(sys, "argv", ["train", "--folder", str(folder), "--num-processes", "3", "--no-compiles"])
    train.main()
    ((function, (run, *others), num_processes),) = started
    assert function is train._train_process
    assert (run.num_processes, run.compiles, num_processes) == (3, False, 3)
    assert others == [folder, 29_511, None]
    assert folder.is_dir()


ORPHAN = """
import multiprocessing, os, sys, time
from langnorm.abacus import train

def work():
    train._end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(100)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=work).start()
    time.sleep(100)
"""


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """Also when that one is killed, which tells them nothing."""
    program = tmp_path / "orphan.py"
    program.write_text(ORPHAN)
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        assert parent.stdout.readline().strip().isdecimal()
        parent.kill()
        rest, _ = parent.communicate(timeout=60)  # the pipe closes when the last process that has it ends

    assert rest == ""


def test_weights_that_are_not_there_are_said_so(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Before anything is trained or written."""
    monkeypatch.setattr(sys, "argv", ["train", "--weights", "nowhere"])
    with pytest.raises(SystemExit):
        train.main()
    assert "no `model.safetensors` in `nowhere`; give `--weights` the folder of a model" in capsys.readouterr().err


def test_training_never_draws_a_held_out_problem() -> None:
    """The trainer's corpus and the evaluation's problems have nothing in common."""
    import random

    rng = random.Random("0/0/0")
    seen = {corpus.problem_of(corpus.draw(rng, "train")) for _ in range(2_000)}
    from langnorm.abacus.generator import arithmetic

    held_out = {corpus.problem_of(e) for e in corpus.held_out(arithmetic.draw, 200)}
    assert not seen & held_out

"""Train Abacus from nothing: `python -m langnorm.abacus.train`.

The run is decided by its arguments alone: the batches of steps 12 k to 12 k + 11 of process r are drawn from a
generator seeded by both, so a run that was stopped goes on from its checkpoint as if nothing had happened.

Data-parallel over single-threaded processes, which beats threads on a shared machine; float32 throughout.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

import langnorm.abacus
from langnorm.abacus.data import corpus
from langnorm.abacus.muon import Muon
from langnorm.abacus.tokenizer import VOCABULARY_SIZE, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

    from langnorm.abacus.data.base import Example

_PROMPT_WEIGHT = 0.1  # of a prompt token's loss; the assistant's tokens weigh 1
_STEPS_PER_POOL = 12  # batches are cut from a pool that is sorted by length, so that little is padding
_WARM_UP_STEPS = 40
_CHECKPOINT_STEPS = 100


@dataclass(frozen=True, slots=True)
class Phase:
    """One rise and fall of the learning rates.

    Attributes:
        num_tokens: Tokens to train on, padding included, over all processes.
        mix: What is drawn.
        lr_scale: Factor on both learning rates at their highest.
        decay: Share of the phase at its end over which the learning rates fall linearly to zero.
    """

    num_tokens: int
    mix: corpus.Mix
    lr_scale: float
    decay: float


# The second phase lifts the rates once more and lets them fall for the whole of it.
PHASES = (Phase(22_000_000, "broad", 1.0, 0.45), Phase(22_500_000, "practice", 0.8, 1.0))


@dataclass(frozen=True, slots=True)
class Run:
    """What decides the weights.

    Attributes:
        phases: One after the other.
        scale: Factor on the tokens of every phase, for a trial.
        tokens_per_step: Tokens of one optimizer step, over all processes.
        num_processes: Single-threaded processes that share each step.
        matrix_lr: Muon's learning rate, for the matrices.
        vector_lr: AdamW's learning rate, for the embedding and the norms.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the MLP.
        num_layers: Number of decoder layers.
        seed: Of the weights and of the data.
    """

    phases: tuple[Phase, ...] = PHASES
    scale: float = 1.0
    tokens_per_step: int = 6_144
    num_processes: int = 2
    matrix_lr: float = 0.02
    vector_lr: float = 3e-3
    hidden_size: int = 128
    intermediate_size: int = 320
    num_layers: int = 12
    seed: int = 0

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps."""
        return sum(self._phase_steps(phase) for phase in self.phases)

    def phase_at(self, step: int) -> tuple[Phase, int]:
        """Return the phase that `step` belongs to and its first step."""
        first = 0
        for phase in self.phases[:-1]:
            if step < first + self._phase_steps(phase):
                return phase, first
            first += self._phase_steps(phase)
        return self.phases[-1], first

    def lr_scale(self, step: int) -> float:
        """Return the factor on both learning rates at `step`: a short rise, a plateau, a fall to zero."""
        phase, first = self.phase_at(step)
        num_steps = self._phase_steps(phase)
        rise = min(1.0, (step - first + 1) / _WARM_UP_STEPS)
        fall = min(1.0, (first + num_steps - step) / max(1, round(phase.decay * num_steps)))
        return phase.lr_scale * min(rise, fall)

    def _phase_steps(self, phase: Phase) -> int:
        return round(self.scale * phase.num_tokens) // self.tokens_per_step


def build_model(run: Run, tokenizer: PreTrainedTokenizerBase) -> Qwen3ForCausalLM:
    """Return the model with random weights, in float32."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(run.seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=run.hidden_size,
        intermediate_size=run.intermediate_size,
        num_hidden_layers=run.num_layers,
        num_attention_heads=run.hidden_size // 32,
        num_key_value_heads=run.hidden_size // 64,
        head_dim=32,
        max_position_embeddings=langnorm.abacus.CONTEXT_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation: its token ids and the weight of each one's loss."""

    ids: list[int]
    weights: list[float]


def row_of(tokenizer: PreTrainedTokenizerBase, example: Example) -> Row:
    """Return the rendered example; everything that the assistant says weighs 1, in earlier turns too."""
    prompt, completion = render(tokenizer, example)
    weights = [_PROMPT_WEIGHT] * len(prompt) + [1.0] * len(completion)
    header = tokenizer("<|im_start|>assistant\n")["input_ids"]
    end = tokenizer.eos_token_id
    starts = [i + len(header) for i in range(len(prompt)) if prompt[i : i + len(header)] == header]
    for start in starts[:-1]:  # the last one is the completion's own
        stop = prompt.index(end, start) + 1
        weights[start:stop] = [1.0] * (stop - start)
    return Row(prompt + completion, weights)


def batches(run: Run, tokenizer: PreTrainedTokenizerBase, rank: int, first: int = 0) -> Iterator[list[Row]]:
    """Yield one process' batches from step `first` to the last.

    A batch times its longest row is at most the process' share of a step.
    """
    for step in range(first, run.num_steps):
        number, place = divmod(step, _STEPS_PER_POOL)
        if step == first or place == 0:
            pool = _draw_pool(run, tokenizer, rank, number)
        yield pool[place]


def _draw_pool(run: Run, tokenizer: PreTrainedTokenizerBase, rank: int, number: int) -> list[list[Row]]:
    """Return the batches of the steps from `number` times `_STEPS_PER_POOL` on."""
    rng = random.Random(f"{run.seed}/{rank}/{number}")
    budget = run.tokens_per_step // run.num_processes
    mix = run.phase_at(number * _STEPS_PER_POOL)[0].mix
    rows: list[Row] = []
    num_tokens = 0
    while num_tokens < budget * _STEPS_PER_POOL:
        rows.append(row_of(tokenizer, corpus.draw(rng, "train", mix)))
        num_tokens += len(rows[-1].ids)
    rows.sort(key=lambda row: len(row.ids))
    pool: list[list[Row]] = []
    batch: list[Row] = []
    for row in rows:
        if batch and len(row.ids) * (len(batch) + 1) > budget:
            pool.append(batch)
            batch = []
        batch.append(row)
    pool.append(batch)
    rng.shuffle(pool)
    return pool[:_STEPS_PER_POOL]


def batch_loss(model: Qwen3ForCausalLM, batch: list[Row], pad_id: int) -> tuple[torch.Tensor, float]:
    """Return the weighted mean loss per token, in nats, and the plain mean over the assistant's tokens.

    Rows are padded on the right, so the causal mask alone keeps padding out of every real token.
    """
    longest = max(len(row.ids) for row in batch)
    ids = torch.full((len(batch), longest), pad_id)  # (B, T)
    weights = torch.zeros(len(batch), longest)
    for number, row in enumerate(batch):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        weights[number, : len(row.ids)] = torch.tensor(row.weights)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # (B, T - 1, V)
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    is_answer = weights == 1.0
    return (losses * weights).sum() / weights.sum(), losses.detach()[is_answer].mean().item()


class _Checkpoint:
    """The state of one process' run on disk; process 0's holds the weights of all."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "checkpoint.pt"

    def save(self, step: int, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        state = {
            "step": step,
            "model": model.state_dict(),
            "optimizers": [o.state_dict() for o in optimizers],
        }
        partial = self._path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._path)

    def load(self, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> int:
        if not self._path.exists():
            return 0
        state = torch.load(self._path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        return int(state["step"])


def _train_process(rank: int, run: Run, folder: Path, port: int) -> None:
    from tqdm import tqdm
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=run.num_processes)
    tokenizer = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    model = build_model(run, tokenizer)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    vectors = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=run.matrix_lr),
        torch.optim.AdamW(vectors, lr=run.vector_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    checkpoint = _Checkpoint(folder)
    first = checkpoint.load(model, optimizers)
    progress = tqdm(total=run.num_steps, initial=first, unit="step", disable=rank > 0, mininterval=5)
    log = (folder / "log.jsonl").open("a") if rank == 0 else None
    average = None
    for step, batch in enumerate(batches(run, tokenizer, rank, first), first):
        loss, answer_loss = batch_loss(model, batch, tokenizer.pad_token_id)
        loss.backward()
        _average_gradients(model)
        for optimizer, lr in zip(optimizers, (run.matrix_lr, run.vector_lr), strict=True):
            optimizer.param_groups[0]["lr"] = lr * run.lr_scale(step)
            optimizer.step()
            optimizer.zero_grad()
        average = answer_loss if average is None else 0.98 * average + 0.02 * answer_loss
        progress.update()
        progress.set_postfix(loss=f"{average:.4f}", refresh=False)
        if log and (step + 1) % 20 == 0:
            print(json.dumps({"step": step + 1, "loss": round(average, 5)}), file=log, flush=True)
        if rank == 0 and ((step + 1) % _CHECKPOINT_STEPS == 0 or step + 1 == run.num_steps):
            checkpoint.save(step + 1, model, optimizers)
    if rank == 0:
        save_model(model, run)
    dist.barrier()
    dist.destroy_process_group()


def _average_gradients(model: torch.nn.Module) -> None:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    torch._foreach_copy_(gradients, [f.view_as(g) for f, g in zip(
        flat.split([g.numel() for g in gradients]), gradients, strict=True)])  # fmt: skip


def save_model(model: Qwen3ForCausalLM, run: Run, folder: Path | None = None) -> None:
    """Write weights, configuration and generation settings to the model's folder.

    The file holds float16, which halves it and moves no weight by more than 0.05 %; the configuration says
    float32, so that it is loaded and run in that.
    """
    from transformers import GenerationConfig

    folder = folder or langnorm.abacus.path()
    model.save_pretrained(folder, state_dict={name: w.half() for name, w in model.state_dict().items()})
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text()) | {"dtype": "float32", "langnorm_run": asdict(run)}
    config_file.write_text(json.dumps(config, indent=2) + "\n")
    GenerationConfig(
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
        do_sample=True,
        temperature=0.7,
        top_p=1.0,
        top_k=0,
    ).save_pretrained(folder)


def main() -> None:
    """Train with the arguments of the command line, and resume where a run in the same folder stopped."""
    parser = argparse.ArgumentParser(
        description="Train Abacus and write it into the package.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for item in fields(Run)[1:]:
        name = "--" + item.name.replace("_", "-")
        parser.add_argument(name, type=type(item.default), default=item.default)
    parser.add_argument("--folder", type=Path, default=Path("abacus-run"), help="checkpoint and log")
    parser.add_argument("--port", type=int, default=29_511, help="for the processes to find each other")
    arguments = vars(parser.parse_args())
    folder, port = arguments.pop("folder"), arguments.pop("port")
    run = Run(**arguments)
    folder.mkdir(parents=True, exist_ok=True)
    # Spinning threads take the time of the processes beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with suppress(KeyboardInterrupt):
        spawn(_train_process, args=(run, folder, port), nprocs=run.num_processes)


if __name__ == "__main__":
    main()

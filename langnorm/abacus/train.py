"""Train Abacus from nothing: `python -m langnorm.abacus.train`.

The run is decided by its arguments alone: the batches of steps 12 k to 12 k + 11 of process r are drawn from a
generator seeded by both, so a run that was stopped goes on from its checkpoint as if nothing had happened.

Data-parallel over single-threaded processes, which beats threads on a shared machine. Weights, their sums and the
optimizers' memory are float32; a phase may compute its products in bfloat16, where the processor is fast at that.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

import langnorm.abacus
from langnorm.abacus.generator import corpus
from langnorm.abacus.tokenizer import VOCABULARY_SIZE
from langnorm.abacus.training.fast_forward import prepare, products_in
from langnorm.abacus.training.lessons import Conversation, render_conversation
from langnorm.abacus.training.muon import Muon
from langnorm.abacus.training.schedule import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

_STEPS_PER_POOL = 12  # batches are cut from a pool that is sorted by length, so that little is padding
_CHECKPOINT_STEPS = 100


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


def batches(run: Run, tokenizer: PreTrainedTokenizerBase, rank: int, first: int = 0) -> Iterator[list[Conversation]]:
    """Yield one process' batches from step `first` to the last.

    A batch, padded to its longest conversation, has at most the process' share of the tokens of a step.
    """
    for step in range(first, run.num_steps):
        number, place = divmod(step, _STEPS_PER_POOL)
        if step == first or place == 0:
            pool = _draw_pool(run, tokenizer, rank, number)
        yield pool[place]


def _draw_pool(run: Run, tokenizer: PreTrainedTokenizerBase, rank: int, number: int) -> list[list[Conversation]]:
    """Return the batches of the steps from `number` times `_STEPS_PER_POOL` on."""
    rng = random.Random(f"{run.seed}/{rank}/{number}")
    budget = run.tokens_per_step // run.num_processes
    phase = run.phase_at(number * _STEPS_PER_POOL)[0]
    conversations: list[Conversation] = []
    num_tokens = 0
    while num_tokens < budget * _STEPS_PER_POOL:
        conversations.append(render_conversation(tokenizer, corpus.draw(rng, "train", phase.mix), phase.lesson))
        num_tokens += len(conversations[-1].ids)
    conversations.sort(key=lambda conversation: len(conversation.ids))
    pool: list[list[Conversation]] = []
    batch: list[Conversation] = []
    for conversation in conversations:
        if batch and len(conversation.ids) * (len(batch) + 1) > budget:
            pool.append(batch)
            batch = []
        batch.append(conversation)
    pool.append(batch)
    while len(pool) > _STEPS_PER_POOL:
        del pool[rng.randrange(len(pool))]
    # The same order in all processes: those of a step wait for the slowest, and equal lengths take equal time.
    random.Random(f"{run.seed}/{number}").shuffle(pool)
    return pool


def batch_loss(model: Qwen3ForCausalLM, batch: list[Conversation], pad_id: int) -> tuple[torch.Tensor, float]:
    """Return the weighted mean loss per token, in nats, and the plain mean over the assistant's tokens.

    Conversations are padded on the right, so the causal mask alone keeps padding out of every real token.
    """
    longest = max(len(conversation.ids) for conversation in batch)
    ids = torch.full((len(batch), longest), pad_id)  # (B, T)
    weights = torch.zeros(len(batch), longest)
    for number, conversation in enumerate(batch):
        ids[number, : len(conversation.ids)] = torch.tensor(conversation.ids)
        weights[number, : len(conversation.ids)] = torch.tensor(conversation.weights)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # (B, T - 1, V)
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
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


def _train_process(rank: int, run: Run, folder: Path, port: int, weights: Path | None = None) -> None:
    from tqdm import tqdm
    from transformers import AutoTokenizer

    _end_with_parent()
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
    prepare(model, compiles=run.compiles)
    checkpoint = _Checkpoint(folder)
    first = checkpoint.load(model, optimizers)
    if first == 0 and weights:
        first = run.last_phase_start
        model.load_state_dict(type(model).from_pretrained(weights).state_dict())
    progress = tqdm(total=run.num_steps, initial=first, unit="step", disable=rank > 0, mininterval=5)
    average = None
    for step, batch in enumerate(batches(run, tokenizer, rank, first), first):
        phase, phase_start = run.phase_at(step)
        if phase.is_fresh and step == phase_start:
            _refresh(model, optimizers)
        with products_in(phase.precision):
            loss, answer_loss = batch_loss(model, batch, tokenizer.pad_token_id)
        loss.backward()
        _average_gradients(model)
        for optimizer, lr in zip(optimizers, (run.matrix_lr, run.vector_lr), strict=True):
            optimizer.param_groups[0]["lr"] = lr * run.lr_scale(step)
            optimizer.step()  # in float32: rounding to bfloat16 lets Muon's iteration run away
            optimizer.zero_grad()
        average = answer_loss if average is None else 0.98 * average + 0.02 * answer_loss
        progress.update()
        progress.set_postfix(loss=f"{average:.4f}", refresh=False)
        if rank == 0 and (step + 1) % 20 == 0:
            with (folder / "log.jsonl").open("a") as log:
                print(json.dumps({"step": step + 1, "loss": round(average, 5)}), file=log)
        if rank == 0 and ((step + 1) % _CHECKPOINT_STEPS == 0 or step + 1 == run.num_steps):
            checkpoint.save(step + 1, model, optimizers)
    if rank == 0:
        save_model(model, run)
    dist.barrier()
    dist.destroy_process_group()


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, killed or not: nobody else would."""
    if parent := multiprocessing.parent_process():

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _refresh(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    """Leave nothing but the weights as they would be shipped."""
    model.load_state_dict({name: w.half().float() for name, w in model.state_dict().items()})
    for optimizer in optimizers:
        optimizer.state.clear()


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
    documented = [line.strip().partition(": ") for line in (Run.__doc__ or "").partition("Attributes:")[2].splitlines()]
    help_of = {name: text for name, _, text in documented}
    for item in fields(Run)[1:]:
        name = "--" + item.name.replace("_", "-")
        is_flag = isinstance(item.default, bool)
        kind = {"action": argparse.BooleanOptionalAction} if is_flag else {"type": type(item.default)}
        parser.add_argument(name, default=item.default, help=help_of[item.name], **kind)
    parser.add_argument("--folder", type=Path, default=Path("abacus-run"), help="checkpoint and log")
    parser.add_argument(
        "--weights",
        type=Path,
        help="folder of the model that the phase before the last one left: run the last one alone",
    )
    parser.add_argument("--port", type=int, default=29_511, help="for the processes to find each other")
    arguments = vars(parser.parse_args())
    folder, port, weights = arguments.pop("folder"), arguments.pop("port"), arguments.pop("weights")
    run = Run(**arguments)
    if weights and not run.phases[-1].is_fresh:
        parser.error("the last phase goes on from more than weights; leave out `--weights` and run them all")
    if weights and not (weights / "model.safetensors").exists():
        parser.error(f"no `model.safetensors` in `{weights}`; give `--weights` the folder of a model")
    folder.mkdir(parents=True, exist_ok=True)
    # Spinning threads take the time of the processes beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with suppress(KeyboardInterrupt):
        spawn(_train_process, args=(run, folder, port, weights), nprocs=run.num_processes)


if __name__ == "__main__":
    main()

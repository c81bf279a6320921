"""Many sampled answers of real models with everything that scores read, for benchmarks on an accelerator.

    python -m benchmarks.real_samples prompts coder-1.5b GSM8K.jsonl build/prompts.json --num-problems 500
    python -m benchmarks.real_samples sample .models/FILE.gguf build/prompts.json build/real-samples/coder-1.5b --n 16

By a plain decoder (`real_decoder.py`): prompts are run once for all samples, sequences that have ended are dropped, and
thousands of them run at once. Samples lie in a folder, a file per batch, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor

from benchmarks.real_decoder import TOKEN_VALUES, Cache, Decoder, distribution_values, lens_values

NUM_LATE = 8  # last layers whose norms are kept for each token; of all layers, the means over an answer
_FEW = 0.8  # when no more than this share of the sequences is left, the others are dropped


class StateValues:
    """Collects what is kept of the states of a batch of answers: norms, updates, cosines and mean states.

    The cosine between tokens is 1 for the first one, which has none before it here.

    Args:
        decoder: Whose states they are.
        batch: Number of answers.
        max_tokens: Most tokens of each.
    """

    def __init__(self, decoder: Decoder, batch: int, max_tokens: int) -> None:
        num_layers, width, device = decoder.num_layers, decoder.embeddings.size(1), decoder.device
        self.norms = torch.zeros(batch, max_tokens, min(NUM_LATE, num_layers), device=device, dtype=torch.float16)
        self.sums = torch.zeros(batch, 4, num_layers, device=device)
        self.states = torch.zeros(batch, num_layers + 1, width, device=device)  # sums over tokens
        self.counts = torch.zeros(batch, device=device)
        self._last: Tensor | None = None

    def add(self, states: Tensor, rows: Tensor, step: int, is_active: Tensor) -> None:
        """Add the states (R, layers + 1, d) of generated token `step` of the answers `rows` (R,) of the batch."""
        states = states.float()
        norms = states.norm(dim=-1)
        below, above = states[:, :-1], states[:, 1:]
        updates = (above - below).norm(dim=-1) / norms[:, :-1]
        between_layers = F.cosine_similarity(above, below, -1)
        last = above if self._last is None else self._last
        between_tokens = F.cosine_similarity(above, last, -1)
        self._last = above
        values = torch.stack([norms[:, 1:], updates, between_layers, between_tokens], 1)
        weight = is_active.float()
        self.norms[rows, step] = norms[:, -self.norms.size(2) :].half()
        self.sums[rows] += values * weight[:, None, None]
        self.states[rows] += states * weight[:, None, None]
        self.counts[rows] += weight

    def take(self, rows: Tensor) -> None:
        """Follow a batch of which these rows are left."""
        self._last = None if self._last is None else self._last[rows]

    def means(self) -> tuple[Tensor, Tensor]:
        """Return the means (B, 4, layers) of norm, relative update and cosines, and both scores of Chain-of-Embedding.

        The second, (B, 2), are `coe_r` and `coe_c` of arXiv 2410.13640 on the mean states.
        """
        counts = self.counts.clamp(min=1)
        states = self.states / counts[:, None, None]
        below, above = states[:, :-1], states[:, 1:]
        first, last = states[:, 0], states[:, -1]
        lengths = (above - below).norm(dim=-1) / (last - first).norm(dim=-1)[:, None]
        angles = F.cosine_similarity(above, below, -1).clamp(-1, 1).acos()
        angles = angles / F.cosine_similarity(last, first, -1).clamp(-1, 1).acos()[:, None]
        real = lengths.mean(-1) - angles.mean(-1)
        modulus = torch.hypot((lengths * angles.cos()).mean(-1), (lengths * angles.sin()).mean(-1))
        return self.sums / counts[:, None, None], torch.stack([real, modulus], -1)


@dataclass(frozen=True, slots=True)
class Batch:
    """Sampled answers, in the order of problems and within them of samples (B of them, T the longest).

    Attributes:
        ids: Tokens (B, T), as far as `lengths` says.
        lengths: Numbers of tokens (B,).
        values: `TOKEN_VALUES` (B, T, 6) of each token, float16.
        lens: Divergence (B, T, lens layers) of the lens' distribution from the final one, float16.
        norms: Norms (B, T, late layers) after the last layers; the last token of an answer was never run.
        means: Means (B, 4, layers) over an answer.
        coe: `coe_r` and `coe_c` (B, 2).
    """

    ids: np.ndarray
    lengths: np.ndarray
    values: np.ndarray
    lens: np.ndarray
    norms: np.ndarray
    means: np.ndarray
    coe: np.ndarray


@torch.inference_mode()
def sample(
    decoder: Decoder,
    prompts: list[list[int]],
    n: int,
    *,
    end_ids: list[int],
    temperature: float,
    seed: int,
    max_tokens: int,
    lens_layers: tuple[int, ...] = (),
) -> Batch:
    """Return `n` answers to each prompt; a temperature of 0 is greedy."""
    device = decoder.device
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    is_token = torch.tensor([[False] * (width - len(p)) + [True] * len(p) for p in prompts], device=device)
    cache = Cache(decoder, len(prompts))
    last = decoder.run(ids, (is_token.cumsum(1) - 1).clamp(min=0), is_token, cache)
    copies = torch.arange(len(prompts), device=device).repeat_interleave(n)
    cache.take(copies)
    last, is_token = last[copies], is_token[copies]
    batch = len(copies)
    generator = torch.Generator(device).manual_seed(seed)
    rows = torch.arange(batch, device=device)  # the answer that each row of the batch belongs to
    tokens = torch.zeros(batch, max_tokens, dtype=torch.int32, device=device)
    values = torch.zeros(batch, max_tokens, len(TOKEN_VALUES), dtype=torch.float16, device=device)
    lens = torch.zeros(batch, max_tokens, len(lens_layers), dtype=torch.float16, device=device)
    lengths = torch.full((batch,), max_tokens, dtype=torch.int32, device=device)
    of_states = StateValues(decoder, batch, max_tokens)
    is_active = torch.ones(batch, dtype=torch.bool, device=device)
    ends = torch.tensor(end_ids, device=device)
    for step in range(max_tokens):
        logits = decoder.logits(last[:, -1])
        scores = logits
        if temperature > 0:
            noise = torch.empty_like(logits).exponential_(generator=generator).log_().neg_()
            scores = noise.add_(logits, alpha=1 / temperature)
        chosen = scores.argmax(-1, keepdim=True)
        tokens[rows, step] = chosen[:, 0].int()
        values[rows, step] = distribution_values(logits, chosen).half()
        for place, layer in enumerate(lens_layers):
            lens[rows, step, place] = lens_values(logits, decoder.logits(last[:, layer + 1])).half()
        has_ended = is_active & torch.isin(chosen[:, 0], ends)
        lengths[rows[has_ended]] = step + 1
        is_active &= ~has_ended
        if step == max_tokens - 1:
            break
        if step % 8 == 7:  # a device is waited for now and then only
            num_left = int(is_active.sum())
            if not num_left:
                break
            if num_left <= _FEW * len(rows):
                left = is_active.nonzero()[:, 0]
                cache.take(left)
                of_states.take(left)
                rows, chosen, is_token, is_active = rows[left], chosen[left], is_token[left], is_active[left]
        is_token = F.pad(is_token, (0, 1), value=True)
        last = decoder.run(chosen, is_token.sum(1, keepdim=True) - 1, is_token, cache)
        of_states.add(last, rows, step, is_active)
    means, coe = of_states.means()
    longest = int(lengths.max())
    return Batch(
        ids=tokens[:, :longest].cpu().numpy(),
        lengths=lengths.cpu().numpy(),
        values=values[:, :longest].cpu().numpy(),
        lens=lens[:, :longest].cpu().numpy(),
        norms=of_states.norms[:, :longest].cpu().numpy(),
        means=means.half().cpu().numpy(),
        coe=coe.cpu().numpy(),
    )


def save(file: Path, batch: Batch, first: int, n: int) -> None:
    """Write the answers to the problems from number `first` on, whole or not at all."""
    longest = batch.ids.shape[1]
    is_token = np.arange(longest) < batch.lengths[:, None]
    partial_file = file.with_suffix(".partial")
    with partial_file.open("wb") as opened:
        np.savez(
            opened,
            first=first,
            n=n,
            lengths=batch.lengths,
            ids=batch.ids[is_token],
            values=batch.values[is_token],
            lens=batch.lens[is_token],
            norms=batch.norms[is_token],
            means=batch.means,
            coe=batch.coe,
        )
    partial_file.replace(file)


def load(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """Yield what was stored of each batch, in the order of problems; arrays of tokens are joined over answers."""
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as stored:
            yield dict(stored)


def prepare(model: str, problems: Path, file: Path, num_problems: int, instruction: str) -> None:
    """Write the prompts of a file of problems, in GSM8K's own format, as token ids, with the answers."""
    from benchmarks.real_models import fetch
    from langnorm.engines.transformers.loading import load_tokenizer

    tokenizer: Any = load_tokenizer(str(fetch(model)), {})
    stored = []
    for line in problems.read_text(encoding="utf-8").splitlines()[:num_problems]:
        problem = json.loads(line)
        messages = [{"role": "user", "content": f"{problem['question']}\n\n{instruction}"}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        stored.append({"ids": ids, "answer": problem["answer"].rpartition("####")[2].strip().replace(",", "")})
    end_ids = sorted(
        {tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])} - {None}
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"model": model, "end_ids": end_ids, "problems": stored}))


def main() -> None:
    """Prepare prompts or sample answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prompts = commands.add_parser("prompts")
    prompts.add_argument("model")
    prompts.add_argument("problems", type=Path)
    prompts.add_argument("file", type=Path)
    prompts.add_argument("--num-problems", type=int)
    prompts.add_argument(
        "--instruction", default="Solve this step by step, and end with the final answer as a number in \\boxed{}."
    )
    sampling = commands.add_parser("sample")
    sampling.add_argument("model", type=Path)
    sampling.add_argument("prompts", type=Path)
    sampling.add_argument("folder", type=Path)
    sampling.add_argument("--n", type=int, default=8)
    sampling.add_argument("--temperature", type=float, default=0.7)
    sampling.add_argument("--max-tokens", type=int, default=800)
    sampling.add_argument("--batch", type=int, default=2048, help="answers that run at once")
    sampling.add_argument("--lens", type=int, nargs="*", default=(), help="layers for a logit lens")
    sampling.add_argument("--device", default="cuda")
    sampling.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    if arguments.command == "prompts":
        prepare(arguments.model, arguments.problems, arguments.file, arguments.num_problems, arguments.instruction)
        return
    from transformers import AutoModelForCausalLM

    path, dtype = arguments.model, getattr(torch, arguments.dtype)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype).to(arguments.device)
    decoder, stored = Decoder(model), json.loads(arguments.prompts.read_text())
    problems = [problem["ids"] for problem in stored["problems"]]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    size = max(1, arguments.batch // arguments.n)
    for first in range(0, len(problems), size):
        file = arguments.folder / f"{first:05}.npz"
        if file.exists():
            continue
        start = time.perf_counter()
        batch = sample(
            decoder,
            problems[first : first + size],
            arguments.n,
            end_ids=stored["end_ids"],
            temperature=arguments.temperature,
            seed=first,
            max_tokens=arguments.max_tokens,
            lens_layers=tuple(arguments.lens),
        )
        save(file, batch, first, arguments.n)
        seconds, num_tokens = time.perf_counter() - start, int(batch.lengths.sum())
        cut = (batch.lengths == arguments.max_tokens).mean()
        print(f"{file.name}: {num_tokens} tokens, {num_tokens / seconds:.0f} a second, {cut:.1%} cut", flush=True)


if __name__ == "__main__":
    main()

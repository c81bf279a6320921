"""Many sampled answers of real models with everything that scores read, for benchmarks on an accelerator.

    python -m benchmarks.real_samples prompts coder-1.5b GSM8K.jsonl build/prompts.json --num-problems 500
    python -m benchmarks.real_samples sample .models/FILE.gguf build/prompts.json build/real-samples/coder-1.5b --n 16

A plain decoder in PyTorch for models of the Llama and Qwen families, without langnorm's engine: prompts are run once
for all samples, sequences that have ended are dropped, and thousands of them run at once. `check` compares it with the
engine. Samples lie in a folder, a file per batch, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor

NUM_LATE = 8  # last layers whose norms are kept for each token; of all layers, the means over an answer
TOP = 20  # most likely tokens whose mean log-probability is kept
TOKEN_VALUES = ("logprob", "entropy", "self_certainty", "top5", "top20", "mass5")
"""What is kept of the distribution of each token: see `distribution_values`."""
_FEW = 0.8  # when no more than this share of the sequences is left, the others are dropped
_ROOM = 64  # positions by which the caches grow


class Decoder:
    """The forward pass of a decoder of the Llama and Qwen families, step by step.

    Args:
        model: As transformers loads it; its weights are used as they are, on their device and in their dtype.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        weights: dict[str, Tensor] = dict(model.named_parameters())
        self.num_layers, self.eps = config.num_hidden_layers, config.rms_norm_eps
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.num_heads
        self.embeddings, self.last_norm = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
        self.output: Tensor = weights.get("lm_head.weight", self.embeddings)
        self.device, self.dtype = self.embeddings.device, self.embeddings.dtype
        rope = getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta}
        frequencies = rope["rope_theta"] ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim)
        angles = torch.arange(8192, dtype=torch.float32)[:, None] * torch.cat([frequencies, frequencies])
        self.cos, self.sin = (x.to(self.device, self.dtype) for x in (angles.cos(), angles.sin()))
        self.layers = [self._layer(weights, f"model.layers.{i}.") for i in range(self.num_layers)]

    @staticmethod
    def _layer(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
        layer = {name.removeprefix(prefix): w.detach() for name, w in weights.items() if name.startswith(prefix)}
        parts = [f"self_attn.{x}_proj" for x in "qkv"]
        layer["qkv"] = torch.cat([layer.pop(f"{part}.weight") for part in parts])
        if f"{parts[0]}.bias" in layer:
            layer["qkv.bias"] = torch.cat([layer.pop(f"{part}.bias") for part in parts])
        layer["gate_up"] = torch.cat([layer.pop(f"mlp.{x}_proj.weight") for x in ("gate", "up")])
        return layer

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.size(-1),), weight, self.eps)

    @staticmethod
    def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits (B, V), float32, of residual streams (B, d) after the last layer (or, as a lens, any)."""
        return F.linear(self._rms(states, self.last_norm), self.output).float()

    def run(self, ids: Tensor, positions: Tensor, is_token: Tensor, cache: Cache) -> Tensor:
        """Run tokens (B, T) after those in the cache.

        Args:
            ids: The tokens.
            positions: Position of each in its own sequence (B, T).
            is_token: Which columns of the cache and of these tokens are no padding (B, columns).
            cache: Keys and values; it gains T columns.

        Returns:
            The residual stream (B, layers + 1, d) of the last token before the first and after each layer.
        """
        batch, length = ids.shape
        start, end = cache.end, cache.end + length
        cache.make_room(end)
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        sizes = [heads * self.head_dim for heads in (self.num_heads, self.num_kv_heads, self.num_kv_heads)]
        mask = is_token[:, None, None, :end]
        if length > 1:
            columns = torch.arange(end, device=ids.device)
            # Padding sees itself: a row of the softmax without any column would be no number.
            causal, itself = columns <= columns[start:, None], columns == columns[start:, None]
            mask = (mask & causal) | itself
        x = F.embedding(ids, self.embeddings)
        states = [x[:, -1]]
        for i, layer in enumerate(self.layers):
            h = F.linear(self._rms(x, layer["input_layernorm.weight"]), layer["qkv"], layer.get("qkv.bias"))
            q, k, v = (part.view(batch, length, -1, self.head_dim).transpose(1, 2) for part in h.split(sizes, -1))
            if "self_attn.q_norm.weight" in layer:
                q, k = self._rms(q, layer["self_attn.q_norm.weight"]), self._rms(k, layer["self_attn.k_norm.weight"])
            q = self._rotated(q, cos, sin)
            cache.keys[i][:, :, start:end] = self._rotated(k, cos, sin)
            cache.values[i][:, :, start:end] = v
            keys, values = cache.keys[i][:, :, :end], cache.values[i][:, :, :end]
            if length == 1:  # the heads of a group are rows of one product
                q = q.reshape(batch, self.num_kv_heads, -1, self.head_dim)
                weights = (q @ keys.transpose(-1, -2)).float() * self.head_dim**-0.5
                weights = weights.masked_fill_(~mask, -torch.inf).softmax(-1).to(self.dtype)
                heads = (weights @ values).reshape(batch, 1, -1)
            else:
                group = self.num_heads // self.num_kv_heads
                keys, values = (part.repeat_interleave(group, 1) for part in (keys, values))
                heads = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
                heads = heads.transpose(1, 2).reshape(batch, length, -1)
            x = x + F.linear(heads, layer["self_attn.o_proj.weight"])
            gate, up = F.linear(self._rms(x, layer["post_attention_layernorm.weight"]), layer["gate_up"]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer["mlp.down_proj.weight"])
            states.append(x[:, -1])
        cache.end = end
        return torch.stack(states, 1)


class Cache:
    """Keys and values of each layer (B, KV heads, columns, head_dim), with room for columns to come."""

    def __init__(self, decoder: Decoder, batch: int) -> None:
        shape = (batch, decoder.num_kv_heads, 0, decoder.head_dim)
        empty = torch.empty(shape, device=decoder.device, dtype=decoder.dtype)
        self.keys, self.values = [empty] * decoder.num_layers, [empty] * decoder.num_layers
        self.end = 0

    def make_room(self, end: int) -> None:
        """Grow to at least so many columns, layer by layer."""
        if (missing := end - self.keys[0].size(2)) > 0:
            for part in (self.keys, self.values):
                for i, tensor in enumerate(part):
                    part[i] = F.pad(tensor, (0, 0, 0, missing + _ROOM))

    def take(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order; a row may be taken several times."""
        for part in (self.keys, self.values):
            for i, tensor in enumerate(part):
                part[i] = tensor[rows]


def distribution_values(logits: Tensor, chosen: Tensor) -> Tensor:
    """Return `TOKEN_VALUES` (B, 6) of distributions given as logits (B, V), in nats.

    The log-probability of the chosen token, the entropy, the divergence of the uniform distribution from this one, the
    mean log-probabilities of the 5 and of the 20 most likely tokens, and the probability of the 5.
    """
    vocabulary = logits.size(-1)
    log_total = logits.logsumexp(-1)
    mean_logprob = logits.mean(-1) - log_total
    probabilities = (logits - log_total[:, None]).exp_()
    entropy = log_total - torch.linalg.vecdot(probabilities, logits)
    top = logits.topk(min(TOP, vocabulary), -1).values - log_total[:, None]
    logprob = logits.gather(-1, chosen)[:, 0] - log_total
    self_certainty = -math.log(vocabulary) - mean_logprob
    five = top[:, :5]
    return torch.stack([logprob, entropy, self_certainty, five.mean(-1), top.mean(-1), five.exp().sum(-1)], dim=-1)


def lens_values(logits: Tensor, lens_logits: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence (B,), in bits, of two distributions given as logits (B, V)."""
    p, q = logits.log_softmax(-1), lens_logits.log_softmax(-1)
    middle = torch.logaddexp(p, q) - math.log(2)
    return ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / (2 * math.log(2))


class StateValues:
    """Collects what is kept of the states of a batch of answers: norms, updates, cosines and mean states.

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

"""Many sampled answers of Abacus with their norms, for benchmarks that need hundreds of thousands of them.

A plain decoder in PyTorch, without transformers and without langnorm's engine: the prompt is run once for all samples,
the caches are written in place, and sequences that have ended are dropped. It gives what the engine gives (`check`
compares them) several times as fast. Samples lie in a folder, a file per problem, so that a run that was stopped goes
on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from safetensors.torch import load_file
from torch import Tensor

import langnorm.abacus
from langnorm.abacus.generator import arithmetic, corpus
from langnorm.abacus.generator.base import Example, Split

NUM_SAMPLES = 32
TEMPERATURES = (0.7, 1.0)
MAX_TOKENS = 700  # the longest working in training has about 550
_ROOM = 128  # positions by which the caches grow
_FEW = 0.75  # when no more than this share of the sequences is left, the others are dropped


@dataclass(frozen=True, slots=True)
class Sampled:
    """One answer of T tokens.

    Attributes:
        ids: Its tokens (T,).
        norms: The norms (T - 1, layers) after every decoder layer.
        logprobs: Log-probability (T,) of each token, before temperature.
    """

    ids: np.ndarray
    norms: np.ndarray
    logprobs: np.ndarray


class Decoder:
    """Abacus' forward pass, step by step."""

    def __init__(self, path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        weights = {name: tensor.float() for name, tensor in load_file(path / "model.safetensors").items()}
        self.num_layers = config["num_hidden_layers"]
        self.num_heads, self.num_kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim, self.eps = config["head_dim"], config["rms_norm_eps"]
        self.end_id = config["eos_token_id"]
        frequencies = config["rope_parameters"]["rope_theta"] ** (-torch.arange(0, self.head_dim, 2) / self.head_dim)
        angles = torch.arange(config["max_position_embeddings"])[:, None] * torch.cat([frequencies, frequencies])
        self.cos, self.sin = angles.cos(), angles.sin()
        self.embeddings, self.last_norm = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
        self.layers = [self._layer(weights, f"model.layers.{i}.") for i in range(self.num_layers)]

    @staticmethod
    def _layer(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
        layer = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        layer["qkv"] = torch.cat([layer.pop(f"self_attn.{x}_proj.weight") for x in "qkv"])
        layer["gate_up"] = torch.cat([layer.pop(f"mlp.{x}_proj.weight") for x in ("gate", "up")])
        return layer

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.size(-1),), weight, self.eps)

    def _rotated(self, x: Tensor, start: int) -> Tensor:
        """Rotate (B, heads, T, head_dim) by the positions from `start`."""
        positions = slice(start, start + x.size(2))
        first, second = x.chunk(2, -1)
        return x * self.cos[positions] + torch.cat([-second, first], -1) * self.sin[positions]

    def run(self, ids: Tensor, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Run tokens (B, T) at the positions from `start`; the caches are (layers, B, KV heads, positions, head_dim).

        Returns:
            Logits (B, vocabulary) and norms (B, layers) of the last of them.
        """
        batch, length = ids.shape
        end = start + length
        sizes = [heads * self.head_dim for heads in (self.num_heads, self.num_kv_heads, self.num_kv_heads)]
        x, norms = self.embeddings[ids], []
        for i, layer in enumerate(self.layers):
            h = self._rms(x, layer["input_layernorm.weight"]) @ layer["qkv"].T
            q, k, v = (part.view(batch, length, -1, self.head_dim).transpose(1, 2) for part in h.split(sizes, -1))
            q = self._rotated(self._rms(q, layer["self_attn.q_norm.weight"]), start)
            keys[i, :, :, start:end] = self._rotated(self._rms(k, layer["self_attn.k_norm.weight"]), start)
            values[i, :, :, start:end] = v
            seen_keys, seen_values = keys[i, :, :, :end], values[i, :, :, :end]
            if length == 1:  # the heads of a group are rows of one product
                q = q.reshape(batch, self.num_kv_heads, -1, self.head_dim)
                weights = (q @ seen_keys.transpose(-1, -2) * self.head_dim**-0.5).softmax(-1)
                heads = (weights @ seen_values).reshape(batch, 1, -1)
            else:
                heads = F.scaled_dot_product_attention(q, seen_keys, seen_values, is_causal=True, enable_gqa=True)
                heads = heads.transpose(1, 2).reshape(batch, length, -1)
            x = x + heads @ layer["self_attn.o_proj.weight"].T
            gate, up = (self._rms(x, layer["post_attention_layernorm.weight"]) @ layer["gate_up"].T).chunk(2, -1)
            x = x + (F.silu(gate) * up) @ layer["mlp.down_proj.weight"].T
            norms.append(torch.linalg.vector_norm(x[:, -1], dim=-1))
        return self._rms(x[:, -1], self.last_norm) @ self.embeddings.T, torch.stack(norms, -1)

    @torch.inference_mode()
    def sample(
        self, prompt: list[int], temperatures: list[float], seed: int, max_tokens: int = MAX_TOKENS
    ) -> list[Sampled]:
        """Return one answer per temperature; 0 is greedy."""
        generator = torch.Generator().manual_seed(seed)
        length = len(prompt)
        caches = torch.zeros(2, self.num_layers, 1, self.num_kv_heads, length + _ROOM, self.head_dim)
        logits, _ = self.run(torch.tensor([prompt]), caches[0], caches[1], 0)
        num_sequences = len(temperatures)
        caches = caches.repeat_interleave(num_sequences, 2)
        logits = logits.expand(num_sequences, -1)
        scale = torch.tensor(temperatures)[:, None]
        alive = torch.arange(num_sequences)
        tokens: list[list[int]] = [[] for _ in temperatures]
        norms: list[list[Tensor]] = [[] for _ in temperatures]
        logprobs: list[list[float]] = [[] for _ in temperatures]
        for position in range(length, length + max_tokens):
            drawn = torch.multinomial((logits / scale.clamp(min=1e-6)).softmax(-1), 1, generator=generator)
            chosen = torch.where(scale > 0, drawn, logits.argmax(-1, keepdim=True))
            chosen_logprobs = logits.log_softmax(-1).gather(-1, chosen)[:, 0].tolist()
            ids = chosen[:, 0].tolist()
            for place, number in enumerate(alive.tolist()):
                if number >= 0:
                    tokens[number].append(ids[place])
                    logprobs[number].append(chosen_logprobs[place])
            alive[chosen[:, 0] == self.end_id] = -1
            left = alive >= 0
            if not left.any() or position == length + max_tokens - 1:
                break
            if left.float().mean() <= _FEW:
                alive, scale, chosen, caches = alive[left], scale[left], chosen[left], caches[:, :, left]
            if position == caches.size(-2):
                caches = F.pad(caches, (0, 0, 0, _ROOM))
            logits, of_step = self.run(chosen, caches[0], caches[1], position)
            for place, number in enumerate(alive.tolist()):
                if number >= 0:
                    norms[number].append(of_step[place])
        stacked = [torch.stack(of) if of else torch.zeros(0, self.num_layers) for of in norms]
        return [
            Sampled(np.array(ids, dtype=np.int32), of_answer.numpy(), np.array(values, dtype=np.float32))
            for ids, of_answer, values in zip(tokens, stacked, logprobs, strict=True)
        ]


def problems(split: Split, num_problems: int) -> list[Example]:
    """Return held-out problems of 4 to 12 steps."""
    return list(corpus.held_out(partial(arithmetic.draw, level="hard", enable_thinking=True), num_problems, split))


def load(file: Path) -> dict[float, list[Sampled]]:
    """Return the samples of one problem, by temperature."""
    with np.load(file) as stored:
        ends, temperatures = np.cumsum(stored["lengths"]), stored["temperatures"].tolist()
        ids, logprobs = (np.split(stored[name], ends[:-1]) for name in ("ids", "logprobs"))
        norms = np.split(stored["norms"], np.cumsum(stored["lengths"] - 1)[:-1])
    by_temperature: dict[float, list[Sampled]] = {}
    for temperature, *of_sample in zip(temperatures, ids, norms, logprobs, strict=True):
        by_temperature.setdefault(temperature, []).append(Sampled(*of_sample))
    return by_temperature


def _save(file: Path, temperatures: list[float], samples: list[Sampled]) -> None:
    partial_file = file.with_suffix(".partial")
    with partial_file.open("wb") as opened:
        np.savez(
            opened,
            temperatures=np.array(temperatures),
            lengths=np.array([len(sample.ids) for sample in samples]),
            ids=np.concatenate([sample.ids for sample in samples]),
            norms=np.concatenate([sample.norms for sample in samples]),
            logprobs=np.concatenate([sample.logprobs for sample in samples]),
        )
    partial_file.replace(file)


def make(folder: Path, split: Split, num_problems: int, part: tuple[int, int] = (0, 1)) -> list[Path]:
    """Sample what is missing of `num_problems` problems, every `part[1]`-th of them from `part[0]` on.

    Returns:
        The files of all problems of this part.
    """
    from tqdm import tqdm
    from transformers import AutoTokenizer

    from langnorm.abacus.tokenizer import render

    tokenizer: Any = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    decoder = Decoder(langnorm.abacus.path())
    folder.mkdir(parents=True, exist_ok=True)
    temperatures = [temperature for temperature in TEMPERATURES for _ in range(NUM_SAMPLES)]
    files = []
    for number, problem in list(enumerate(tqdm(problems(split, num_problems), unit="problem")))[part[0] :: part[1]]:
        file = folder / f"{split}-{number:04}.npz"
        if not file.exists():
            _save(file, temperatures, decoder.sample(render(tokenizer, problem)[0], temperatures, seed=number))
        files.append(file)
    return files


def check(decoder: Decoder, num_problems: int = 4) -> float:
    """Return the largest difference from the engine on greedy answers, of norms (relative) and of probabilities.

    Raises:
        AssertionError: A token differs.
    """
    from langnorm import ChatLangNorm, NormTrace
    from langnorm.abacus.tokenizer import render

    chat = ChatLangNorm(temperature=0, norms="tokens", layers="all", logprobs=True, max_tokens=MAX_TOKENS)
    largest = 0.0
    for problem in problems("dev", num_problems):
        message = chat.invoke(list(problem.prompt))
        trace = NormTrace.from_message(message)
        sampled = decoder.sample(render(chat.loaded_engine().tokenizer, problem)[0], [0.0, 0.0], seed=0)[1]
        expected = [entry["logprob"] for entry in message.response_metadata["logprobs"]["content"]]
        assert len(sampled.ids) == len(expected), "The plain decoder and the engine give different answers."
        ours, theirs = sampled.norms, np.array(trace.token_norms)
        largest = max(largest, float(np.abs(ours / theirs - 1).max()))
        largest = max(largest, float(np.abs(np.exp(sampled.logprobs) - np.exp(expected)).max()))
    return largest


def main() -> None:
    """Make samples: `python -m benchmarks.samples FOLDER SPLIT NUM_PROBLEMS PART OF_PARTS`."""
    import sys

    folder, split, num_problems, *part = sys.argv[1:]
    torch.set_num_threads(1)
    number, of = map(int, part or ("0", "1"))
    make(Path(folder), split, int(num_problems), (number, of))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

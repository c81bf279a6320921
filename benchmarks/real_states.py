"""The states of a real model on stored answers, which it reads again, all tokens of an answer at once."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.real_samples import load
from langnorm.engines.transformers.decoder_layers import find_decoder_layers, hooked
from langnorm.probes.answer_states import AnswerStates


@dataclass(frozen=True, slots=True)
class Answers:
    """Stored answers, A of them.

    Attributes:
        prompts: Token ids of each one's prompt.
        ids: Token ids of each that were run; the last of an answer never is.
        problems: Number of the problem of each.
        sample: Which answer to its problem each is.
    """

    prompts: list[list[int]]
    ids: list[list[int]]
    problems: list[int]
    sample: list[int]

    def take(self, num_samples: int) -> Answers:
        """Return the first answers to each problem."""
        rows = [row for row, sample in enumerate(self.sample) if sample < num_samples]
        columns = (self.prompts, self.ids, self.problems, self.sample)
        return Answers(*([column[row] for row in rows] for column in columns))  # type: ignore[arg-type]


def read_answers(folder: Path, prompts: list[list[int]]) -> Answers:
    """Return the stored answers to the problems that these prompts are of."""
    answers = Answers([], [], [], [])
    for batch in load(folder):
        first, n = int(batch["first"]), int(batch["n"])
        parts = np.split(batch["ids"], np.cumsum(batch["lengths"])[:-1])
        for row, ids in enumerate(parts):
            problem = first + row // n
            if problem < len(prompts) and len(ids) > 1:
                answers.prompts.append(prompts[problem])
                answers.ids.append(ids[:-1].tolist())
                answers.problems.append(problem)
                answers.sample.append(row % n)
    return answers


@torch.inference_mode()
def collect(model: Any, answers: Answers, layers: list[int], room: int) -> AnswerStates:
    """Run the answers through the model and return the states of their tokens after some layers, and norms after all.

    Args:
        model: As transformers loads it.
        answers: What is run, several at once; padding stands on the right, where no token sees it.
        layers: Whose states are kept.
        room: Most tokens of a batch, padding included.
    """
    device, start = model.device, time.perf_counter()
    lengths = np.array([len(p) + len(a) for p, a in zip(answers.prompts, answers.ids, strict=True)])
    decoder_layers = find_decoder_layers(model)
    kept: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    norms: list[list[Tensor]] = [[] for _ in decoder_layers]
    numbers: list[Tensor] = []
    tokens: list[Tensor] = []
    is_answer = torch.zeros(0)

    def keep(layer: int, output: Any) -> None:
        states = (output[0] if isinstance(output, tuple) else output)[is_answer]
        norms[layer].append(states.float().norm(dim=-1).cpu())
        if layer in kept:
            kept[layer].append(states)

    def hook_of(layer: int) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:  # noqa: ARG001
            keep(layer, output)

        return hook

    waiting = list(np.argsort(-lengths))
    with hooked(decoder_layers, {layer: hook_of(layer) for layer in range(len(decoder_layers))}):
        for number in itertools.count(1):
            longest = lengths[waiting[0]]
            rows, waiting = waiting[: max(1, room // longest)], waiting[max(1, room // longest) :]
            ids = torch.zeros(len(rows), longest, dtype=torch.int64)
            is_answer = torch.zeros(len(rows), longest, dtype=torch.bool)
            for place, row in enumerate(rows):
                prompt, answer = answers.prompts[row], answers.ids[row]
                ids[place, : lengths[row]] = torch.tensor(prompt + answer)
                is_answer[place, len(prompt) : lengths[row]] = True
            numbers.append(torch.tensor(rows)[:, None].expand(-1, longest)[is_answer])
            tokens.append(ids[is_answer])
            is_answer = is_answer.to(device)
            model.get_decoder()(input_ids=ids.to(device), use_cache=False)
            if not waiting or number % 10 == 0:
                print(f"  {len(answers.ids) - len(waiting)} of {len(answers.ids)} answers read", flush=True)
            if not waiting:
                break
    states = {layer: torch.cat(parts) for layer, parts in kept.items()}
    print(f"  {sum(map(len, numbers))} tokens in {time.perf_counter() - start:.0f} s", flush=True)
    every_norm = torch.stack([torch.cat(parts) for parts in norms], 1)
    return AnswerStates(
        states, range(len(decoder_layers)), every_norm, torch.cat(tokens), torch.cat(numbers), answers.problems
    )


def load_model(path: Path, device: str, dtype: str) -> Any:
    """Return the model of a GGUF file."""
    from transformers import AutoModelForCausalLM, GgufConfig

    print(f"Loading {path.name}", flush=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=getattr(torch, dtype),
        quantization_config=GgufConfig(dequantize=True),
    )
    return model.to(device).eval()

"""Sparse autoencoders of a real model's states on reasoned and on direct answers to the same problems.

    python -m benchmarks.real_sae .models/FILE.gguf build/prompts.json build/reasoned build/direct build/sae --layer 20

The answers are those that `real_samples.py` has stored. The model reads them again, all tokens of an answer at once;
the states of those that were decode steps train an SAE. What is reported is of problems that had no part in training or
in the choice of features.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.real_states import collect, load_model, read_answers
from langnorm.probes.answer_states import AnswerStates
from langnorm.probes.figures import write_figures
from langnorm.probes.sae import SAEConfig, save_sae
from langnorm.probes.sae_report import compare, count_violations, groups_of, norm_curves, over_layers, same_tokens
from langnorm.probes.sae_training import SAETraining, measure_sae, train_sae

BAR = 0.9  # of explained variance on held-out problems
_TIMED_STEPS = 40


def steps_within(seconds: float, states: Tensor, config: SAEConfig, training: SAETraining) -> int:
    """Return how many steps of a training this device makes in some seconds."""
    device, short = states.device, replace(training, num_steps=_TIMED_STEPS, dead_steps=1)
    train_sae(states, config, short, device=device, is_quiet=True)
    start = time.perf_counter()
    sae = train_sae(states, config, short, device=device, is_quiet=True)
    float(sae.b_dec.sum())  # a device is waited for
    return max(_TIMED_STEPS, int(seconds * _TIMED_STEPS / (time.perf_counter() - start)))


def training_states(layer: int, reasoned: AnswerStates, direct: AnswerStates, is_training: Tensor) -> Tensor:
    """Return the states of both kinds of answers to the problems of the training."""
    return torch.cat([states.of(layer, is_training)[0] for states in (reasoned, direct)])


def probe(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return everything that is reported; SAEs are written into folders beside the report."""
    device, room = arguments.device, arguments.batch_tokens
    prompts, direct_prompts = (
        [problem["ids"] for problem in json.loads(file.read_text())["problems"][: arguments.num_problems]]
        for file in (arguments.prompts, arguments.direct_prompts or arguments.prompts)
    )
    num_problems = len(prompts)
    is_held = torch.zeros(num_problems, dtype=torch.bool)
    order = torch.randperm(num_problems, generator=torch.Generator().manual_seed(0))
    is_held[order[: max(2, round(arguments.held_out * num_problems))]] = True
    answers, direct_answers = read_answers(arguments.samples, prompts), read_answers(arguments.direct, direct_prompts)
    model = load_model(arguments.model, device, arguments.dtype)
    layer, width = arguments.layer, model.config.hidden_size
    print(f"Reading {len(answers.ids)} reasoned and {len(direct_answers.ids)} direct answers", flush=True)
    reasoned, direct = collect(model, answers, [layer], room), collect(model, direct_answers, [layer], room)
    report: dict[str, Any] = {
        "model": arguments.model.name,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "num_problems": num_problems,
        "num_held_out": int(is_held.sum()),
        "num_tokens": {"reasoned": len(reasoned.norms), "direct": len(direct.norms)},
        "norms": norm_curves(reasoned, direct, num_problems),
        "norms_on_the_same_tokens": norm_curves(same_tokens(reasoned, direct), direct, num_problems),
        "saes": [],
    }
    write(arguments.out, report)
    states = training_states(layer, reasoned, direct, ~is_held)
    for k in arguments.k:
        config = SAEConfig(width, arguments.expansion * width, "topk", k, metadata=metadata(arguments.model, layer))
        training = SAETraining(batch_size=arguments.batch_size)
        training = replace(training, num_steps=steps_within(arguments.seconds, states, config, training))
        print(f"Layer {layer}, k {k}: {training.num_steps} steps on {len(states)} states", flush=True)
        start = time.perf_counter()
        sae = train_sae(states, config, training, device=device, is_quiet=True)
        held, direct_held = (part.of(layer, is_held)[0] for part in (reasoned, direct))
        quality = measure_sae(sae, held)
        seconds = time.perf_counter() - start
        print(f"  {quality}, {seconds:.0f} s", flush=True)
        row = {
            "layer": layer,
            "k": k,
            "training": asdict(training),
            "seconds": seconds,
            "held_out": asdict(quality),
            "training_states": asdict(measure_sae(sae, states)),
            "held_out_direct": asdict(measure_sae(sae, direct_held)),
        }
        report["saes"].append(row)
        save_sae(sae, arguments.out / f"layer{layer}-k{k}", dtype="float16")
        write(arguments.out, report)
        row["bound"] = count_violations(sae, held)
        groups = groups_of(sae, layer, reasoned, direct, ~is_held)
        row["features"] = compare(sae, layer, groups, reasoned, direct, is_held)
        matched = same_tokens(reasoned, direct)
        groups = groups_of(sae, layer, matched, direct, ~is_held)
        row["features_on_the_same_tokens"] = compare(sae, layer, groups, matched, direct, is_held)
        print(f"  bound: {row['bound']}", flush=True)
        write(arguments.out, report)
        if quality.explained_variance >= BAR:
            break
    del reasoned, direct, states
    if arguments.all_layers:
        report["layers"] = []
        layers = list(range(model.config.num_hidden_layers))
        few = answers.take(arguments.layer_samples)
        reasoned, direct = collect(model, few, layers, room), collect(model, direct_answers, layers, room)
        for layer in layers:
            report["layers"].append(of_layer(layer, reasoned, direct, is_held, arguments))
            write(arguments.out, report)
        report["over_layers"] = over_layers(norm_curves(reasoned, direct, num_problems), report["layers"])
        print(f"Over layers: {report['over_layers']}", flush=True)
    return report


def of_layer(
    layer: int, reasoned: AnswerStates, direct: AnswerStates, is_held: Tensor, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return what a small SAE of one layer finds."""
    states = training_states(layer, reasoned, direct, ~is_held)
    width = states.size(1)
    config = SAEConfig(width, arguments.layer_expansion * width, "topk", arguments.layer_k)
    training = SAETraining(num_steps=arguments.layer_steps, batch_size=arguments.batch_size, dead_steps=100)
    sae = train_sae(states, config, training, device=arguments.device, is_quiet=True)
    held, norms, _ = reasoned.of(layer, is_held)
    quality = measure_sae(sae, held)
    groups = groups_of(sae, layer, reasoned, direct, ~is_held)
    row = {"layer": layer, "median_norm": float(norms.median()), "held_out": asdict(quality)}
    row |= compare(sae, layer, groups, reasoned, direct, is_held)
    print(f"Layer {layer}: {quality}, {int(groups.reasoning.sum())} reasoning features", flush=True)
    return row


def metadata(model: Path, layer: int) -> dict[str, Any]:
    """Return what the SAE's config says of its model."""
    return {"model_name": model.stem, "hook_name": f"blocks.{layer}.hook_resid_post", "hook_layer": layer}


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write what is known so far."""
    folder.mkdir(parents=True, exist_ok=True)
    write_figures(folder / "sae.json", report)


def main() -> None:
    """Read the answers, train, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("prompts", type=Path, help="of the reasoned answers, as real_samples.py writes it")
    parser.add_argument("samples", type=Path, help="folder of the reasoned answers")
    parser.add_argument("direct", type=Path, help="folder of the direct answers")
    parser.add_argument("out", type=Path, help="folder that is written")
    parser.add_argument("--direct-prompts", type=Path, help="of the direct answers, where they are others")
    parser.add_argument("--layer", type=int, required=True)
    parser.add_argument("--num-problems", type=int)
    parser.add_argument("--held-out", type=float, default=0.3, help="share of the problems that are only reported on")
    parser.add_argument("--expansion", type=int, default=8, help="features for each entry of a state")
    parser.add_argument("--k", type=int, nargs="+", default=[64], help=f"tried in this order until {BAR} is explained")
    parser.add_argument("--seconds", type=float, default=120, help="about how long an SAE is trained")
    parser.add_argument("--batch-size", type=int, default=4096, help="states of a step")
    parser.add_argument("--batch-tokens", type=int, default=65_536, help="tokens that the model reads at once")
    parser.add_argument("--all-layers", action="store_true", help="a small SAE of each layer as well")
    parser.add_argument("--layer-samples", type=int, default=2, help="answers to each problem that these are made of")
    parser.add_argument("--layer-expansion", type=int, default=4)
    parser.add_argument("--layer-k", type=int, default=32)
    parser.add_argument("--layer-steps", type=int, default=1000)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    start = time.perf_counter()
    report = probe(arguments)
    report["seconds"] = time.perf_counter() - start
    write(arguments.out, report)
    print(f"Done in {report['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()

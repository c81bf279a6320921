"""Do interventions help a real model? Greedy answers to GSM8K problems with each of them, beside the plain ones.

    python -m benchmarks.real_interventions run .models/FILE.gguf GSM8K.jsonl build/real-interventions/coder-1.5b
    python -m benchmarks.real_interventions report coder-1.5b --write

`run` answers with langnorm itself; each method has a file of its own, so that a run that was stopped goes on.
`report` compares the methods on the same problems: paired bootstrap intervals, and McNemar's exact test.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.documents import put
from langnorm.evaluation.statistics import bootstrap_mean, mcnemar
from langnorm.selection.statements import stated_number

ROOT = Path(__file__).resolve().parent.parent
INSTRUCTION = "Solve this step by step, and end with the final answer as a number in \\boxed{}."
BASELINE = "plain"
METHODS: Mapping[str, Mapping[str, Any]] = {
    BASELINE: {},
    "recursion": {"recursion": {}},
    "steering": {"steering": {}},
    "block loop, decode": {"recursion": {"mode": "block", "on": "decode"}},
    "block loop, prefill": {"recursion": {"mode": "block", "on": "prefill"}},
    "block loop, peaks": {"recursion": {"mode": "block", "on": "peaks"}},
    "suppression, high": {"suppression": {"mode": "high"}},
    "suppression, random": {"suppression": {"mode": "random"}},
    "steering, slack": {"steering": {"trigger": "slack"}},
    "recursion, up to 8": {"recursion": {"max_extra": 8, "growth_eps": 0.01, "blowup": 7.0}},
}
"""What is tried, by name: options of a call, with the defaults of the library where nothing else is said."""


def read_problems(file: Path, num_problems: int | None) -> list[dict[str, str]]:
    """Return question and answer of the first problems of a file in GSM8K's own format."""
    stored = []
    for line in file.read_text(encoding="utf-8").splitlines()[:num_problems]:
        problem = json.loads(line)
        answer = problem["answer"].rpartition("####")[2].strip().replace(",", "")
        stored.append({"question": problem["question"], "answer": stated_number(answer) or answer})
    return stored


def run(arguments: argparse.Namespace) -> None:
    """Answer all problems with each method that has no file yet."""
    from langchain_core.messages import HumanMessage

    from langnorm import ChatLangNorm

    options = {"dtype": arguments.dtype, "device_map": arguments.device}
    chat = ChatLangNorm(
        model=str(arguments.model),
        engine="transformers",
        model_kwargs=options,
        temperature=0,
        max_tokens=arguments.max_tokens,
        max_batch_size=arguments.batch,
    )
    problems = read_problems(arguments.problems, arguments.num_problems)
    prompts: Any = [[HumanMessage(f"{problem['question']}\n\n{INSTRUCTION}")] for problem in problems]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.methods or METHODS:
        file = arguments.folder / f"{name.replace(', ', '-').replace(' ', '-')}.json"
        if file.exists():
            continue
        start = time.perf_counter()
        generations = chat.generate(prompts, **METHODS[name]).generations
        seconds = time.perf_counter() - start
        answers = []
        for problem, (generation,) in zip(problems, generations, strict=True):
            message: Any = generation.message  # type: ignore[union-attr]
            metadata = message.response_metadata
            is_cut = metadata["finish_reason"] == "length"
            stated = None if is_cut else stated_number(message.content)
            acted = {kind: metadata["langnorm"].get(kind) for kind in METHODS[name]}
            answers.append(
                {
                    "is_right": stated == problem["answer"],
                    "is_cut": is_cut,
                    "tokens": message.usage_metadata["output_tokens"],
                    "stated": stated,
                    "acted": acted,
                }
            )
        right = float(np.mean([answer["is_right"] for answer in answers]))
        stored = {"method": name, "options": METHODS[name], "seconds": seconds, "answers": answers}
        partial_file = file.with_suffix(".partial")
        partial_file.write_text(json.dumps(stored))
        partial_file.replace(file)
        print(f"{name}: {right:.3f} right, {seconds:.0f} s", flush=True)


def measure(folder: Path) -> dict[str, Any]:
    """Return the figures of each method in a folder, differences against the plain answers."""
    stored = {one["method"]: one for one in (json.loads(file.read_text()) for file in sorted(folder.glob("*.json")))}
    right = {name: np.array([answer["is_right"] for answer in stored[name]["answers"]]) for name in stored}
    figures: dict[str, Any] = {}
    for name in [name for name in METHODS if name in stored]:
        answers, difference = stored[name]["answers"], right[name].astype(float) - right[BASELINE]
        plain = stored[BASELINE]["answers"]
        changed = [answer["stated"] != other["stated"] for answer, other in zip(answers, plain, strict=True)]
        figures[name] = {
            "num_problems": len(answers),
            "accuracy": bootstrap_mean(right[name]),
            "over_plain": bootstrap_mean(difference),
            "better": int((difference > 0).sum()),
            "worse": int((difference < 0).sum()),
            "p_value": mcnemar(right[name], right[BASELINE]),
            "share_changed": float(np.mean(changed)),
            "share_cut": float(np.mean([answer["is_cut"] for answer in answers])),
            "tokens": float(np.mean([answer["tokens"] for answer in answers])),
        }
    return figures


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the methods as Markdown."""
    lines = [
        "| method | right | points over plain | better, worse | p (McNemar) | answers changed | cut off | tokens |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, of_one in figures.items():
        mean, low, high = (100 * value for value in of_one["over_plain"])
        against = ["", "", "", ""]
        if name != BASELINE:
            against = [f"{mean:+.1f} ({low:+.1f} to {high:+.1f})", f"{of_one['better']}, {of_one['worse']}"]
            against += [f"{of_one['p_value']:.2g}", f"{of_one['share_changed']:.0%}"]
        cells = [f"{of_one['accuracy'][0]:.3f}", *against, f"{of_one['share_cut']:.1%}", f"{of_one['tokens']:.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("model", type=Path)
    running.add_argument("problems", type=Path)
    running.add_argument("folder", type=Path)
    running.add_argument("--methods", nargs="*", choices=METHODS)
    running.add_argument("--num-problems", type=int)
    running.add_argument("--max-tokens", type=int, default=700)
    running.add_argument("--batch", type=int, default=512)
    running.add_argument("--device", default="cuda")
    running.add_argument("--dtype", default="bfloat16")
    reporting = commands.add_parser("report")
    reporting.add_argument("model")
    reporting.add_argument("--write", action="store_true", help="put the table into the README of the benchmarks")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments)
        return
    stored = ROOT / "benchmarks" / "results" / f"real_interventions-{arguments.model}.json"
    folder = ROOT / "build" / "real-interventions" / arguments.model
    if folder.is_dir():
        stored.write_text(json.dumps(measure(folder), indent=1) + "\n")
    text = table(json.loads(stored.read_text()))
    print(text)
    if arguments.write:
        put(ROOT / "benchmarks" / "README.md", f"real_interventions-{arguments.model}", text)


if __name__ == "__main__":
    main()

"""How much higher are the norms of reasoning than those of direct answers, layer by layer?

Asks Abacus the same held-out problems with and without reasoning, and compares the percentiles of the norms in the
profile of the model. Prints a table and writes JSON; with `--write` the table goes into the documentation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.documents import put
from langnorm import ChatLangNorm, NormTrace
from langnorm.abacus.generator import arithmetic, corpus
from langnorm.evaluation.statistics import auroc
from langnorm.norms.layers import select_layers

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("layer", "reasoning", "answer after it", "direct answer", "reasoning - direct", "AUC")


def percentiles(chat: ChatLangNorm, problems: list[Any], *, enable_thinking: bool) -> dict[str, np.ndarray]:
    """Return the percentiles (tokens, layers) of the norms of each kind of step, attention sinks left out."""
    profile = chat.loaded_engine().profile
    assert profile is not None
    replies = chat.batch(problems, enable_thinking=enable_thinking, norms="tokens", layers="all")
    norms: dict[str, list[tuple[float, ...]]] = {}
    for trace in map(NormTrace.from_message, replies):
        assert trace.token_norms is not None
        for step in trace.steps:
            of_step = range(step.start, min(step.end, len(trace.token_norms)))
            norms.setdefault(step.kind, []).extend(trace.token_norms[i] for i in of_step if i not in trace.sinks)
    return {kind: profile.sketch.percentile(of_kind) for kind, of_kind in norms.items()}


def measure(num_problems: int) -> dict[str, Any]:
    """Return the figures of each layer."""
    drawn = corpus.held_out(lambda rng, split: arithmetic.draw(rng, split, enable_thinking=True), num_problems)
    problems = [list(example.messages[:-1]) for example in drawn]
    chat = ChatLangNorm(temperature=0, max_tokens=600, max_batch_size=32)
    thinking = percentiles(chat, problems, enable_thinking=True)
    direct = percentiles(chat, problems, enable_thinking=False)["answer"]
    layers = []
    for layer in range(chat.loaded_engine().num_layers):
        kinds = [ranks[:, layer] for ranks in (thinking["reasoning"], thinking["answer"], direct)]
        means = [float(ranks.mean()) for ranks in kinds]
        layers.append([layer, *means, means[0] - means[2], auroc(kinds[0], kinds[2])])
    numbers = {"reasoning": len(thinking["reasoning"]), "answer": len(thinking["answer"]), "direct": len(direct)}
    return {"num_problems": num_problems, "num_tokens": numbers, "columns": COLUMNS, "layers": layers}


def table(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [f"| {row[0]} | {' | '.join(f'{value:.2f}' for value in row[1:])} |" for row in figures["layers"]]
    return "\n".join([*lines, "", verdict(figures)])


def verdict(figures: dict[str, Any]) -> str:
    """Return in words how strong the signal is, in the late layers and where it is strongest and weakest."""
    aucs = {row[0]: row[-1] for row in figures["layers"]}
    late = select_layers("late", len(aucs))
    mean, (weakest, strongest) = (
        fmean(aucs[i] for i in late),
        (min(aucs, key=aucs.__getitem__), max(aucs, key=aucs.__getitem__)),
    )
    return (
        f"Late layers, which are read by default ({', '.join(map(str, late))}): mean AUC {mean:.2f}. Strongest: layer "
        f"{strongest} ({aucs[strongest]:.2f}); weakest: layer {weakest} ({aucs[weakest]:.2f})."
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-problems", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    arguments = parser.parse_args()
    figures = measure(arguments.num_problems)
    print(table(figures))
    print(f"Tokens: {figures['num_tokens']}")
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    (results / "intensity.json").write_text(json.dumps(figures, indent=2) + "\n")
    if arguments.write:
        put(ROOT / "docs" / "messages.md", "intensity", table(figures))


if __name__ == "__main__":
    main()

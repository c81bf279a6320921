"""The tables of `selection.py`: what they show, and where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.documents import put
from langnorm.evaluation.intervals import points, with_bounds
from langnorm.scores.registry import READABLE_SCORE, SCORES

ROOT = Path(__file__).resolve().parent.parent
NEAR = "none, near 0.1"
METHODS = {
    "one sample (random pick)": "random pick",
    "random pick among distinct answers": "random distinct pick",
    "majority vote (self-consistency)": "majority vote",
    "paper's A, `sum`": "sum | none, near 0",
    "paper's B, `area`": "area | none, near 0",
    "paper's C, `count`": "count | none, near 0",
    "paper's D, `late`": "late | none, near 0",
    "`mean`": "mean | none, near 0",
    "`late_rate`": "late_rate | none, near 0",
    "`late_rate`, near-ties by support": f"late_rate | {NEAR}",
    "`late_rate`, weighted vote": "late_rate | weighted",
    "`mean_logprob`": "mean_logprob | none, near 0",
    "`mean_logprob`, weighted vote": "mean_logprob | weighted",
    "`lowest_window` (DeepConf)": "lowest_window | none, near 0",
    "`lowest_window`, filtered vote": "lowest_window | filtered",
    "`quiet_logprob`": "quiet_logprob | none, near 0",
    "`quiet_logprob`, weighted vote": "quiet_logprob | weighted",
    "`numeral_logprob`": "numeral_logprob | none, near 0",
    "`numeral_logprob`, near-ties by support": f"numeral_logprob | {NEAR}",
    "`numeral_logprob`, weighted vote": "numeral_logprob | weighted",
    "`numeral_logprob`, filtered vote": "numeral_logprob | filtered",
    "oracle (any of n is right)": "oracle",
}


def accuracy_table(of_temperature: dict[str, Any]) -> str:
    """Return accuracies as Markdown, a row per method and a column per n."""
    accuracy = of_temperature["accuracy"]
    sizes = list(accuracy["random pick"])
    lines = [f"| what is kept | {' | '.join(f'n = {size}' for size in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    for words, method in METHODS.items():
        lines.append(f"| {words} | {' | '.join(f'{accuracy[method][size][0]:.3f}' for size in sizes)} |")
    tokens = (f"{of_temperature['tokens'] * int(size):.0f}" for size in sizes)
    return "\n".join([*lines, f"| tokens per question | {' | '.join(tokens)} |"])


def difference_table(figures: dict[str, Any], size: str) -> str:
    """Return by how much each method is better than majority vote with as many samples, as Markdown."""
    by_temperature = figures["temperatures"]
    lines = [f"| over majority vote, n = {size} | {' | '.join(f'T = {t}' for t in by_temperature)} |"]
    lines.append("|---" * (len(by_temperature) + 1) + "|")
    for words, method in METHODS.items():
        cells = [difference(of_one, method, size) for of_one in by_temperature.values()]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def auroc_table(figures: dict[str, Any]) -> str:
    """Return the within-problem AUROC of every score as Markdown, best first."""
    by_temperature = {t: of_one["auroc"] for t, of_one in figures["temperatures"].items()}
    first = next(iter(by_temperature.values()))
    lines = [f"| score | {' | '.join(f'T = {t}' for t in by_temperature)} |", "|---" * (len(by_temperature) + 1) + "|"]
    for name in sorted(first, key=lambda name: -first[name][0]):
        cells = [with_bounds(of_one[name]) for of_one in by_temperature.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def pruning_table(figures: dict[str, Any]) -> str:
    """Return what early stopping saves and costs, as Markdown."""
    lines = ["| T | n | rule | share of the tokens | vote | accuracy | without stopping |", "|---" * 7 + "|"]
    for t, of_one in figures["temperatures"].items():
        for rule, by_size in of_one["pruning"].items():
            for size, of_size in by_size.items():
                for vote, accuracy in of_size["accuracy"].items():
                    whole = of_one["accuracy"][f"{READABLE_SCORE} | {NEAR if vote == 'none' else vote}"][size][0]
                    share = f"{of_size['share']:.2f}"
                    lines.append(f"| {t} | {size} | {rule} | {share} | {vote} | {accuracy[0]:.3f} | {whole:.3f} |")
    return "\n".join(lines)


def difference(of_temperature: dict[str, Any], method: str, size: str) -> str:
    """Return in words how much better a method is than majority vote."""
    return points(of_temperature["over_majority"][method][size], " points")


def verdict(figures: dict[str, Any]) -> str:
    """Return in words what the figures say of norms and of log-probabilities."""
    words = []
    compared = {
        "`numeral_logprob`": METHODS["`numeral_logprob`"],
        "the same, near-ties by support,": METHODS["`numeral_logprob`, near-ties by support"],
        "`mean_logprob`": METHODS["`mean_logprob`"],
        "`late_rate`": METHODS["`late_rate`"],
        "the paper's D": METHODS["paper's D, `late`"],
    }
    of_norms = [
        name
        for name, score in SCORES.items()
        if score.needs_norms and not (score.needs_logprobs or score.needs_reductions)
    ]
    measured = next(iter(figures["temperatures"].values()))["over_majority"]
    of_norms = [name for name in of_norms if f"{name} | none, near 0" in measured]
    areas = ("late_rate", "mean", "mean_logprob", "quiet_logprob", "quiet_logprob, all layers", "numeral_logprob")
    for t, of_one in figures["temperatures"].items():
        over = "; ".join(f"{name} {difference(of_one, method, '16')}" for name, method in compared.items())
        area = ", ".join(f"`{name}` {of_one['auroc'][name][0]:.2f}" for name in areas)
        num_better = sum(of_one["over_majority"][f"{name} | none, near 0"]["16"][1] > 0 for name in of_norms)
        num_telling = sum(of_one["auroc"][name][1] > 0.6 for name in of_norms)
        words.append(
            f"At temperature {t} and n = 16, over majority vote: {over}. Of the {len(of_norms)} scores of norms alone, "
            f"{num_better} are better than majority vote, and {num_telling} have an AUROC above 0.6. AUROC of right "
            f"against wrong answers to the same problem: {area}."
        )
    return "\n\n".join(words)


def report(figures: dict[str, Any], *, write: bool) -> None:
    """Print the tables, and with `write` put them where they belong."""
    tables = []
    for t, of_one in figures["temperatures"].items():
        tables.append(
            f"Temperature {t}: {of_one['tokens']:.0f} tokens and {of_one['distinct']:.1f} distinct answers of 32 on "
            f"average.\n\n{accuracy_table(of_one)}"
        )
    differences = [difference_table(figures, size) for size in ("4", "16")]
    whole = "\n\n".join([*tables, *differences, auroc_table(figures), pruning_table(figures)])
    print(f"{figures['num_problems']} problems of the {figures['split']} split\n\n{whole}\n\n{verdict(figures)}\n")
    print("Best of the library, over all n from 4 on:")
    for mean, method in figures["chosen"]:
        print(f"  {mean:.4f}  {method}")
    if write:
        put(ROOT / "benchmarks" / "README.md", "selection", whole)
        put(ROOT / "docs" / "selection.md", "selection", f"{tables[0]}\n\n{verdict(figures)}")

"""Which of n answers of a real model is kept? Every score beside majority vote, length, log-probability and the oracle.

    python -m benchmarks.real_selection coder-0.5b --write

Reads what `real_samples.py` drew of GSM8K problems. Everything is chosen on some problems and reported on others: those
of the train file and of the test file, or of coder-1.5b two parts of the test file. Intervals are 95 % bootstrap
intervals over problems, differences are paired. AUROC is within problems, over answers that ended. Prints tables and
writes JSON, the scores themselves and a plot by layer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.candidates import Candidates
from benchmarks.documents import put
from benchmarks.real_candidates import Reader, Split
from benchmarks.selection import all_scores, picks, rounded
from langnorm.evaluation.intervals import points, with_bounds
from langnorm.evaluation.methods import drawn_ranking
from langnorm.evaluation.statistics import Interval, auroc, bootstrap_mean
from langnorm.scores.registry import SCORES
from langnorm.scores.scaling import standardised
from langnorm.selection.options import Selection
from langnorm.selection.ranking import Candidate
from langnorm.selection.stopping import STOP_RULES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SIZE = 8
SPLITS: tuple[Split, ...] = ("train", "test")
BASELINES = ("random pick", "random distinct pick", "majority vote", "oracle")
WINDOWS = (2, 3, 4)
PER_LAYER = "mean norm, layer "
MIXTURES = {
    f"`{of_numerals}` and half of `{other}`": {of_numerals: 1.0, other: 0.5}
    for of_numerals in ("numeral_logprob", "numeral_entropy")
    for other in ("numeral_norm", "minus update_cosine", "token_norm", "mean_logprob", "deepconf_tail")
}
"""Mixtures that are tried: what is best alone, with something of another kind."""


def within(problems: Sequence[Candidates], name: str, *, residual: bool = False) -> tuple[Interval, int]:
    """Return the AUROC of a score within problems, mean and interval, and over how many problems.

    Args:
        problems: The candidates.
        name: Of the score.
        residual: Whether what the logarithm of the length explains is taken out first, by one line through the
            standardised values of all problems.
    """
    groups = []
    for of_problem in problems:
        ended = np.array([answer is not None for answer in of_problem.answers])
        mixed = MIXTURES.get(name, {})
        parts = {part: of_problem.values[part] for part in mixed or (name,)}
        scores = np.array(all_scores(parts, {name: mixed} if mixed else {})[name], dtype=float)
        usable = ended & ~np.isnan(scores)
        if usable.sum() > 1:
            columns = (scores[usable], np.log(of_problem.tokens[usable]))
            groups.append((*(np.array(standardised(column)) for column in columns), of_problem.is_right[usable]))
    slope = 0.0
    if residual:
        values, lengths = (np.concatenate([group[i] for group in groups]) for i in (0, 1))
        slope = float(values @ lengths / max(lengths @ lengths, 1e-9))
    areas = [auroc(v[right] - slope * t[right], v[~right] - slope * t[~right]) for v, t, right in groups]
    known = [area for area in areas if not np.isnan(area)]
    return bootstrap_mean(known), len(known)


def accuracies(problems: Sequence[Candidates]) -> dict[str, np.ndarray]:
    """Return the share of right picks of each method, one per problem."""
    chosen = [_without_layers(of_problem) for of_problem in problems]
    by_problem = [dict(picks(of_problem, SIZE, MIXTURES)) for of_problem in chosen]
    return {method: np.array([of_one[method] for of_one in by_problem]) for method in by_problem[0]}


def _without_layers(of_problem: Candidates) -> Candidates:
    values = {name: value for name, value in of_problem.values.items() if not name.startswith(PER_LAYER)}
    return replace(of_problem, values=values)


def measure(model: str) -> tuple[dict[str, Any], dict[Split, list[Candidates]]]:
    """Return all figures of a model, and the candidates that they are of."""
    reader = Reader(model)
    problems: dict[Split, list[Candidates]] = {split: reader.candidates(split) for split in SPLITS}
    figures: dict[str, Any] = {"model": model, "size": SIZE}
    picked = {split: accuracies(problems[split]) for split in SPLITS}
    names = [*problems["train"][0].values, *MIXTURES]
    for split in SPLITS:
        answers, majority = reader.answers(split), picked[split]["majority vote"]
        figures[split] = {
            "num_problems": len(problems[split]),
            "tokens": float(np.mean([len(answer.ids) for answer in answers])),
            "share_cut": float(np.mean([answer.is_cut for answer in answers])),
            "share_right": float(np.mean([answer.is_right for answer in answers])),
            "num_informative": within(problems[split], "shorter")[1],
            "auroc": {name: within(problems[split], name)[0] for name in names},
            "residual": {name: within(problems[split], name, residual=True)[0] for name in names},
            "accuracy": {method: bootstrap_mean(values) for method, values in picked[split].items()},
            "adaptive": adaptive(problems[split]),
            "over_majority": {method: bootstrap_mean(values - majority) for method, values in picked[split].items()},
        }
    return figures, problems


def choose(of_models: Sequence[dict[str, Any]]) -> str:
    """Return the selection that is right most often on the problems to choose on of some models together."""
    of_train = [(figures["train"]["num_problems"], figures["train"]["over_majority"]) for figures in of_models]
    # What no option of a selection can say is not a choice.
    methods = [method for method in of_train[0][1] if method.partition(" | ")[0] in {*SCORES, *MIXTURES}]
    best: str = max(methods, key=lambda method: sum(number * over[method][0] for number, over in of_train))
    return best


def stored_figures() -> list[dict[str, Any]]:
    """Return the figures of all models that were measured."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("real-*.json"))]


def method_of(name: str, near: float) -> str:
    """Return how `picks` names a score by which the best is taken, near-ties by support."""
    return f"{name} | none, near {near:g}"


def default_method() -> str:
    """Return how `picks` names what the library does by default."""
    weights = Selection().to_dict()["score"]
    name = next(name for name, mixed in MIXTURES.items() if mixed == weights)
    return method_of(name, Selection().near)


def table(figures: dict[str, Any]) -> str:
    """Return every score as Markdown, best AUROC on the train problems first."""
    train, test = figures["train"], figures["test"]
    names = [name for name in train["auroc"] if not name.startswith(PER_LAYER)]
    lines = [
        "| score | AUROC, choice | AUROC, report | report, without length | "
        f"best of {SIZE}, report | over majority, report |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(names, key=lambda name: -train["auroc"][name][0]):
        areas = " | ".join(with_bounds(part[name]) for part in (train["auroc"], test["auroc"], test["residual"]))
        method = method_of(name, Selection().near)
        label = f"`{name}`" if name in SCORES else name
        lines.append(f"| {label} | {areas} | {test['accuracy'][method][0]:.3f} | {over_majority(test, method)} |")
    baselines = [
        f"| *{name}* | | | | {test['accuracy'][name][0]:.3f} | {over_majority(test, name)} |" for name in BASELINES
    ]
    return "\n".join([*lines, *baselines])


def over_majority(of_split: dict[str, Any], method: str) -> str:
    """Return in words how much better a method is than majority vote, in points."""
    return points(of_split["over_majority"][method])


def _words(method: str) -> str:
    """Return a method as a reader would say it."""
    name, _, vote = method.partition(" | ")
    near = vote.removeprefix("none, near ")
    name = name if "`" in name else f"`{name}`"
    if near == "0":
        return f"the highest {name}"
    return f"the highest {name}" + (f", near-ties within {near} by support" if near != vote else f" by a {vote} vote")


def summary(figures: dict[str, Any]) -> str:
    """Return in words what was drawn, and what was chosen on some problems is worth on the others."""
    train, test, own = figures["train"], figures["test"], default_method()
    best = max(SCORES, key=lambda name: train["auroc"][name][0] if name in train["auroc"] else 0.0)
    of_norms = [name for name, score in SCORES.items() if score.needs_norms and not score.needs_logprobs]
    of_norms = [name for name in of_norms if name in train["auroc"]]
    best_norm = max(of_norms, key=lambda name: train["auroc"][name][0])
    return (
        f"`{figures['model']}` on GSM8K, {SIZE} answers to each problem at temperature 0.7: {train['num_problems']} "
        f"problems to choose on and {test['num_problems']} others to report, {test['tokens']:.0f} tokens an answer, "
        f"{test['share_cut']:.1%} of the answers cut off, {test['share_right']:.1%} right; "
        f"{train['num_informative']} and {test['num_informative']} problems have right and wrong answers. Best on the "
        f"former: `{best}`, with an AUROC of {with_bounds(test['auroc'][best])} on the latter; of the "
        f"scores of norms `{best_norm}`, {with_bounds(test['auroc'][best_norm])}. The default of the library, "
        f"{_words(own)}, which was best on the problems to choose on of all models together, is "
        f"{over_majority(test, own)} points over majority vote on the latter, and the paper's, "
        f"{_words(method_of('tail, deep', 0))}, "
        f"{over_majority(test, method_of('tail, deep', 0))}."
    )


def report(figures: dict[str, Any]) -> str:
    """Return all that the README of the benchmarks says of a model."""
    plotted = f"![AUROC of the mean norm by decoder layer](results/real-{figures['model']}.png)"
    return f"{summary(figures)}\n\n{table(figures)}\n\n{plotted}\n\n{adaptive_table(figures)}"


def adaptive(problems: Sequence[Candidates]) -> dict[str, dict[str, Any]]:
    """Return accuracy and share of the samples of each rule that ends the draw early, by majority vote as in theirs.

    `accuracy` is of those drawn, `over_all` its difference from that of all samples.
    """
    whole = Selection(n=SIZE, vote="majority")
    ways = {
        f"`{rule}`, windows of {window}": Selection(n=SIZE, vote="majority", stop=rule, window=window)  # type: ignore[arg-type]
        for rule in STOP_RULES
        for window in WINDOWS
    }
    right: dict[str, list[float]] = {name: [] for name in ("all", *ways)}
    shares: dict[str, list[float]] = {name: [] for name in ways}
    for of_problem in problems:
        columns = zip(of_problem.samples, of_problem.answers, of_problem.tokens.tolist(), strict=True)
        drawn = [Candidate(sample, answer, tokens, "stop") for sample, answer, tokens in columns]
        right["all"].append(float(of_problem.is_right[drawn_ranking(whole, drawn).best]))
        for name, way in ways.items():
            ranking = drawn_ranking(way, drawn)
            right[name].append(float(of_problem.is_right[ranking.best]))
            shares[name].append(len(ranking.candidates) / SIZE)
    return {
        name: {
            "share": bootstrap_mean(shares[name]),
            "accuracy": bootstrap_mean(right[name]),
            "over_all": bootstrap_mean(np.array(right[name]) - np.array(right["all"])),
        }
        for name in ways
    }


def adaptive_table(figures: dict[str, Any]) -> str:
    """Return what each rule saves and costs, as Markdown."""
    lines = [
        f"| rule, n = {SIZE} | drawn, choice | points over all, choice | drawn, report | points over all, report |"
    ]
    lines.append("|---" * 5 + "|")
    for name in figures["train"]["adaptive"]:
        cells = []
        for split in SPLITS:
            of_rule = figures[split]["adaptive"][name]
            cells += [f"{of_rule['share'][0]:.0%}", points(of_rule["over_all"])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def save_scores(file: Path, problems: dict[Split, list[Candidates]]) -> None:
    """Write all scores with what they are compared with, compactly."""
    arrays: dict[str, np.ndarray] = {}
    for split, of_split in problems.items():
        for name in of_split[0].values:
            arrays[f"{split}/{name}"] = np.stack([one.values[name] for one in of_split]).astype(np.float32)
        arrays[f"{split}/is_right"] = np.stack([one.is_right for one in of_split])
        arrays[f"{split}/tokens"] = np.stack([one.tokens for one in of_split]).astype(np.int16)
        arrays[f"{split}/answers"] = np.array([[answer or "" for answer in one.answers] for one in of_split])
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def plot(figures: dict[str, Any], file: Path) -> None:
    """Draw the AUROC of the mean norm by layer, with intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for split, colour in zip(SPLITS, ("#0072b2", "#d55e00"), strict=True):
        areas = figures[split]["auroc"]
        by_layer = np.array([areas[f"{PER_LAYER}{i}"] for i in range(len(areas)) if f"{PER_LAYER}{i}" in areas])
        layers = np.arange(len(by_layer))
        axes.plot(layers, by_layer[:, 0], color=colour, marker="o", markersize=3, label=f"{split} problems")
        axes.fill_between(layers, by_layer[:, 1], by_layer[:, 2], color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0.5, color="#777777", linewidth=0.8)
    axes.set(xlabel="decoder layer", ylabel="AUROC of the mean norm", title=figures["model"])
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--write", action="store_true", help="put the tables into the documents")
    parser.add_argument("--stored", action="store_true", help="of the figures that are there, without measuring")
    arguments = parser.parse_args()
    stored, mark = RESULTS / f"real-{arguments.model}.json", f"real-{arguments.model}"
    if not arguments.stored:
        measured, problems = measure(arguments.model)
        stored.write_text(json.dumps(rounded(measured)) + "\n")
        save_scores(RESULTS / f"{mark}-scores.npz", problems)
        plot(measured, RESULTS / f"{mark}.png")
    figures = json.loads(stored.read_text())
    print(report(figures))
    if arguments.write:
        put(ROOT / "benchmarks" / "README.md", mark, report(figures))
        for file in (ROOT / "README.md", ROOT / "docs" / "selection.md"):
            put(file, mark, summary(figures))


if __name__ == "__main__":
    main()

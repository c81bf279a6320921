"""Which of n answers is kept? Every score and every vote, beside random picks, majority vote and the oracle.

Abacus answers held-out problems of 4 to 12 steps, 32 times each at two temperatures (`samples.py`; about an hour and a
half of one core the first time). For n below 32 the samples are cut into groups of n, so that each of them counts once.
Intervals are 95 % bootstrap intervals over problems, differences are paired. Of these answers norms and
log-probabilities are stored, and not what the default of the library reads, which real models chose
(`real_selection.py`). Prints tables and writes JSON; with `--write` the tables go into the documentation and the README
of the benchmarks.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from langchain_core.messages import HumanMessage

import benchmarks.candidates
import langnorm.scores.formulas
import langnorm.scores.formulas_trajectory
import langnorm.scores.registry
from benchmarks import samples
from benchmarks.candidates import NUM_FOR_TOKENS, Candidates, Reader, usual_norms
from langnorm.evaluation.statistics import Interval, auroc, bootstrap_mean
from langnorm.scores.registry import READABLE_SCORE, SCORES
from langnorm.selection.options import VOTES, Selection
from langnorm.selection.pruning import RULES
from langnorm.selection.ranking import Candidate, by_score, by_vote, rank_candidates

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "selection-samples"
SIZES = (1, 2, 4, 8, 16, 32)
NUM_PROBLEMS = {"dev": 200, "test": 500}
NEARS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8)  # standard deviations within which scores count as tied
OF_ABACUS = Selection(score=READABLE_SCORE, near=0.1)
"""The selection whose early stopping is measured here."""

Mixtures = Mapping[str, Mapping[str, float]]
"""Weights of scores by the name of their mixture."""

MIXTURES: Mixtures = {
    "mean_logprob + late_rate": {"mean_logprob": 1.0, "late_rate": 1.0},
    "mean_logprob + growth": {"mean_logprob": 1.0, "growth, layers 8 to 10": 0.5},
    "numeral_logprob + late_rate": {"numeral_logprob": 1.0, "late_rate": 0.5},
    "numeral_logprob + growth": {"numeral_logprob": 1.0, "growth, layers 8 to 10": 0.5},
    "numeral_logprob + quiet_logprob": {"numeral_logprob": 1.0, "quiet_logprob": 1.0},
}

Groups = dict[str, np.ndarray]
"""Share of right picks of each method, one per problem."""


def examine(
    number: int, split: str, usual: tuple[np.ndarray, np.ndarray]
) -> dict[float, tuple[Candidates, dict[int, dict[str, float]]]]:
    """Return the candidates of one problem and the share of right picks by size and method, for each temperature."""
    by_temperature = load_candidates(number, split, usual)
    return {
        temperature: (candidates, {size: shares(candidates, size) for size in SIZES})
        for temperature, candidates in by_temperature.items()
    }


def load_candidates(number: int, split: str, usual: tuple[np.ndarray, np.ndarray]) -> dict[float, Candidates]:
    """Return the candidates of one problem by temperature, kept beside its samples."""
    import torch

    torch.set_num_threads(1)
    modules = (
        langnorm.scores.registry,
        langnorm.scores.formulas,
        langnorm.scores.formulas_trajectory,
        benchmarks.candidates,
    )
    sources = [Path(inspect.getfile(module)) for module in modules]
    version = hashlib.blake2b(b"".join(source.read_bytes() for source in sources), digest_size=6).hexdigest()
    file = FOLDER / f"{split}-{number:04}.npz"
    stored = file.with_suffix(f".{version}.pickle")
    if stored.exists():
        by_temperature: dict[float, Candidates] = pickle.loads(stored.read_bytes())
        return by_temperature
    problem = _problems(split)[number]
    reader = _reader(usual)
    by_temperature = {
        t: reader.candidates(problem.prompt, problem.answer, drawn) for t, drawn in samples.load(file).items()
    }
    stored.write_bytes(pickle.dumps(by_temperature))
    return by_temperature


_cache: dict[str, Any] = {}


def _problems(split: str) -> list[Any]:
    if split not in _cache:
        _cache[split] = samples.problems(split, NUM_PROBLEMS[split])  # type: ignore[arg-type]
    problems: list[Any] = _cache[split]
    return problems


def _reader(usual: tuple[np.ndarray, np.ndarray]) -> Reader:
    if "reader" not in _cache:
        _cache["reader"] = Reader(usual)
    reader: Reader = _cache["reader"]
    return reader


def combined(values: np.ndarray) -> list[float | None]:
    """Return the scores (n, L) of a group, standardised per layer and averaged over layers; None for NaN."""
    if values.shape[1] == 1:
        return [None if np.isnan(value) else float(value) for value in values[:, 0]]
    spread = np.where(np.ptp(values, axis=0) > 1e-9 * np.abs(values).max(axis=0), values.std(axis=0), np.inf)
    means = ((values - values.mean(axis=0)) / spread).mean(axis=1)
    return [None if np.isnan(value) else float(value) for value in means]


def all_scores(group: dict[str, np.ndarray], mixtures: Mixtures = MIXTURES) -> dict[str, list[float | None]]:
    """Return all scores and mixtures of one group."""
    scores = {name: combined(values) for name, values in group.items()}
    for name, weights in mixtures.items():
        parts = [(weight, np.array(scores[part], dtype=float)) for part, weight in weights.items()]
        total = np.sum([w * (v - v.mean()) / (v.std() or np.inf) for w, v in parts], axis=0)
        scores[name] = [None if np.isnan(value) else float(value) for value in total]
    return scores


def picks(of_problem: Candidates, size: int, mixtures: Mixtures = MIXTURES) -> Iterator[tuple[str, float]]:
    """Yield method and share of right answers for every group of `size` samples of one problem."""
    for start in range(0, len(of_problem.tokens), size):
        part = slice(start, start + size)
        is_right, answers = of_problem.is_right[part].astype(float), of_problem.answers[part]
        supports = count_supports(answers)
        yield "random pick", is_right.mean()
        distinct = dict(zip(answers, is_right, strict=True))
        yield "random distinct pick", fmean(distinct.values())
        yield "oracle", is_right.max()
        nothing: list[float | None] = [None] * size
        order = by_score(range(size), nothing, supports)
        yield "majority vote", is_right[by_vote(order, Selection(vote="majority"), answers, nothing)[0]]
        group = {name: values[part] for name, values in of_problem.values.items()}
        for name, scores in all_scores(group, mixtures).items():
            for near in NEARS:
                yield f"{name} | none, near {near:g}", is_right[pick_first(scores, supports, near)]
            if name not in SCORES:
                continue  # what was merely tried is not combined with votes
            order = by_score(range(size), scores, supports, Selection().near)
            for vote in VOTES[1:]:
                best = by_vote(order, Selection(vote=vote), answers, scores)[0]  # type: ignore[arg-type]
                yield f"{name} | {vote}", is_right[best]


def count_supports(answers: list[str | None]) -> list[int]:
    """Return how many candidates have the answer of each; 0 for those without one."""
    return [answers.count(answer) if answer is not None else 0 for answer in answers]


def pick_first(scores: list[float | None], supports: list[int], near: float) -> int:
    """Return the first of `by_score`'s order, without the order."""
    values = [-np.inf if score is None else score for score in scores]
    best = max(values)
    margin = near * float(np.std([score for score in scores if score is not None])) if best > -np.inf else 0.0
    tied = [i for i, score in enumerate(values) if score == best or best - score <= margin]
    return max(tied, key=lambda i: (supports[i], values[i], -i))


def shares(of_problem: Candidates, size: int) -> dict[str, float]:
    """Return the share of right picks of each method, over the groups of one problem."""
    by_method: dict[str, list[float]] = {}
    for method, right in picks(of_problem, size):
        by_method.setdefault(method, []).append(float(right))
    return {method: fmean(rights) for method, rights in by_method.items()}


def aurocs(problems: list[Candidates]) -> dict[str, Interval]:
    """Return within-problem AUROC of each score for correctness, mean and interval, over problems with both kinds."""
    by_name: dict[str, list[float]] = {}
    for of_problem in problems:
        named = all_scores(of_problem.values) | {"shortness": (-of_problem.tokens.astype(float)).tolist()}
        for name, scores in named.items():
            values, is_right = np.array(scores, dtype=float), of_problem.is_right
            by_name.setdefault(name, []).append(auroc(values[is_right], values[~is_right]))
    return {name: bootstrap_mean(values) for name, values in by_name.items()}


def pruned(problems: list[Candidates], drawn: list[Any], size: int, prune: str) -> dict[str, Any]:
    """Return tokens and accuracies of selections that stop samples early, by the library's own decisions."""
    from langnorm.engines.requests import Partial
    from langnorm.selection.score_pruner import ScorePruner

    reader = _reader(_cache["usual"])
    call = reader.chat._prepare([HumanMessage("?")], None, {})
    assert call.recording
    selection = replace(OF_ABACUS, n=size, prune=prune)  # type: ignore[arg-type]
    pruner = ScorePruner(selection, call.recording.layers, call.recording.baseline, reader.engine.tokenizer)
    layers = list(call.recording.layers)
    tokens, full = [], []
    rights: dict[str, list[float]] = {"none": [], "majority": []}
    for of_problem, all_drawn in zip(problems, drawn, strict=True):
        group = all_drawn[:size]
        lengths = [len(sampled.ids) for sampled in group]
        stopped: dict[int, int] = {}
        for now in range(pruner.every, max(lengths), pruner.every):
            left = [i for i in range(size) if i not in stopped]
            if not any(lengths[i] > now for i in left):
                break
            partials = []
            for i in left:
                end = min(now, lengths[i])
                sampled = group[i]
                partials.append(
                    Partial(
                        sampled.ids[:end].tolist(),
                        sampled.norms[: end - 1, layers].tolist(),
                        sampled.logprobs[:end].tolist(),
                        lengths[i] > now,
                    )
                )
            for place in pruner.stopped(partials):
                stopped[left[place]] = now
        candidates = [
            Candidate(
                of_problem.samples[i],
                of_problem.answers[i],
                stopped.get(i, lengths[i]),
                "pruned" if i in stopped else "stop",
            )
            for i in range(size)
        ]
        for vote, of_vote in rights.items():
            best = rank_candidates(replace(selection, vote=vote), candidates).best  # type: ignore[arg-type]
            of_vote.append(float(of_problem.is_right[best]))
        tokens.append(sum(candidate.tokens for candidate in candidates))
        full.append(sum(lengths))
    accuracy = {vote: bootstrap_mean(of_vote) for vote, of_vote in rights.items()}
    return {"accuracy": accuracy, "tokens": fmean(tokens), "share": sum(tokens) / sum(full)}


def checked(problems: list[Candidates], score: str, vote: str) -> int:
    """Compare this script's way through the scores with `rank_candidates`, and return the number of groups compared."""
    num = 0
    for of_problem in problems[:40]:
        for start in range(0, 32, 8):
            part = range(start, start + 8)
            group = [Candidate(of_problem.samples[i], of_problem.answers[i], 1, "stop") for i in part]
            best = rank_candidates(Selection(n=8, score=score, vote=vote), group).best  # type: ignore[arg-type]
            scores = all_scores({name: values[start : start + 8] for name, values in of_problem.values.items()})[score]
            answers = of_problem.answers[start : start + 8]
            order = by_score(range(8), scores, count_supports(answers), Selection().near)
            assert best == by_vote(order, Selection(vote=vote), answers, scores)[0]  # type: ignore[arg-type]
            num += 1
    return num


def measure(split: str, num_problems: int, num_processes: int) -> dict[str, Any]:
    """Return all figures of a split."""
    files = samples.make(FOLDER, "dev", NUM_FOR_TOKENS)
    usual = usual_norms(files, vocabulary=1024)
    _cache["usual"] = usual
    samples.make(FOLDER, split, num_problems)  # type: ignore[arg-type]
    with ProcessPoolExecutor(num_processes) as pool:
        examined = list(pool.map(partial(examine, split=split, usual=usual), range(num_problems), chunksize=4))
    figures: dict[str, Any] = {"split": split, "num_problems": num_problems, "temperatures": {}}
    for temperature in samples.TEMPERATURES:
        problems = [of_one[temperature][0] for of_one in examined]
        drawn = [samples.load(FOLDER / f"{split}-{i:04}.npz")[temperature] for i in range(num_problems)]
        rights = {size: [of_one[temperature][1][size] for of_one in examined] for size in SIZES}
        by_size: dict[int, Groups] = {
            size: {method: np.array([of_one[method] for of_one in of_size]) for method in of_size[0]}
            for size, of_size in rights.items()
        }
        majority = {size: of_size["majority vote"] for size, of_size in by_size.items()}
        figures["temperatures"][str(temperature)] = {
            "tokens": fmean(float(of_one.tokens.mean()) for of_one in problems),
            "distinct": fmean(len(set(of_one.answers)) for of_one in problems),
            "accuracy": {
                method: {str(size): bootstrap_mean(by_size[size][method]) for size in SIZES} for method in by_size[1]
            },
            "over_majority": {
                method: {str(size): bootstrap_mean(by_size[size][method] - majority[size]) for size in SIZES}
                for method in by_size[1]
            },
            "auroc": aurocs(problems),
            "pruning": {
                rule: {str(size): pruned(problems, drawn, size, rule) for size in (8, 16)}
                for rule in (RULES if split == "test" else ())
            },
            "checked": checked(problems, READABLE_SCORE, OF_ABACUS.vote),
        }
    return figures


def chosen(figures: dict[str, Any]) -> list[tuple[float, str]]:
    """Return the library's scores with a vote, best mean accuracy over temperatures and n from 4 on first."""
    means = {
        method: fmean(
            of_one["accuracy"][method][str(size)][0]
            for of_one in figures["temperatures"].values()
            for size in SIZES[2:]
        )
        for method in next(iter(figures["temperatures"].values()))["accuracy"]
        if method.partition(" | ")[0] in SCORES
    }
    return sorted(((mean, method) for method, mean in means.items()), reverse=True)


def rounded(value: Any) -> Any:
    """Return figures with five decimals."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value


def main() -> None:
    """Measure, print and write."""
    from benchmarks.selection_tables import report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=tuple(NUM_PROBLEMS), default="test")
    parser.add_argument("--num-problems", type=int)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the tables into the documents")
    arguments = parser.parse_args()
    figures = measure(arguments.split, arguments.num_problems or NUM_PROBLEMS[arguments.split], arguments.processes)
    figures["chosen"] = chosen(figures)[:10]
    figures = rounded(figures)  # so that the documents say what the file says
    results = ROOT / "benchmarks" / "results"
    (results / f"selection-{arguments.split}.json").write_text(json.dumps(figures) + "\n")
    report(figures, write=arguments.write)


if __name__ == "__main__":
    main()

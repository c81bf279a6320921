"""What does adaptive n save, and what does it cost? Each rule of `Selection(stop=...)`, beside n = 8 and n = 32.

Abacus' stored answers to held-out problems (`samples.py`, as for `selection.py`) are drawn window by window, and the
library's own decisions end the draw. Each problem is drawn twice, from the 1st and from the 17th of its 32 samples on,
and its accuracies are averaged. Intervals are 95 % bootstrap intervals over problems, differences are
paired. Prints a table and writes JSON; with `--write` the tables go into the documentation and the README of the
benchmarks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import samples
from benchmarks.candidates import Reader
from benchmarks.documents import put
from benchmarks.selection import FOLDER, NUM_PROBLEMS, OF_ABACUS, ROOT, rounded
from langnorm.evaluation.intervals import points
from langnorm.evaluation.methods import drawn_ranking
from langnorm.evaluation.statistics import bootstrap_mean
from langnorm.selection.options import Selection, Vote
from langnorm.selection.ranking import Candidate
from langnorm.selection.statements import stated_number
from langnorm.selection.stopping import STOP_RULES

STARTS = (0, 16)
VOTES: tuple[Vote, ...] = (OF_ABACUS.vote, "majority")


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one way to select makes of one problem, averaged over the draws.

    Attributes:
        accuracy: Share of right picks, 0 to 1.
        share: Samples drawn of 32, 0 to 1.
        tokens: Tokens of those that were drawn.
        settled: Share of the draws that ended early, 0 to 1.
    """

    accuracy: float
    share: float
    tokens: float
    settled: float


def selections() -> dict[str, Selection]:
    """Return the ways to select by name."""
    ways: dict[str, Selection] = {}
    for vote in VOTES:
        way = replace(OF_ABACUS, vote=vote, n=samples.NUM_SAMPLES)
        ways |= {f"n = {size} | {vote}": replace(way, n=size) for size in (8, samples.NUM_SAMPLES)}
        ways |= {f"{rule} | {vote}": replace(way, stop=rule) for rule in STOP_RULES}  # type: ignore[arg-type]
    return ways


def examine(number: int, split: str, num_problems: int) -> dict[float, dict[str, Drawn]]:
    """Return what each way to select makes of one problem, by temperature."""
    import torch

    torch.set_num_threads(1)
    problem = samples.problems(split, num_problems)[number]  # type: ignore[arg-type]
    reader = Reader()
    found = {}
    for temperature, drawn in samples.load(FOLDER / f"{split}-{number:04}.npz").items():
        of_samples, texts, _ = reader.samples(problem.prompt, drawn)
        candidates = [
            Candidate(
                sample=sample,
                answer=stated_number(text),
                tokens=len(each.ids),
                finish_reason="stop" if len(each.ids) < samples.MAX_TOKENS else "length",
                key=tuple(each.ids.tolist()),
                text=text,
            )
            for each, sample, text in zip(drawn, of_samples, texts, strict=True)
        ]
        found[temperature] = {name: _drawn(way, candidates, problem.answer) for name, way in selections().items()}
    return found


def _drawn(selection: Selection, candidates: list[Candidate], answer: str | None) -> Drawn:
    rankings = [drawn_ranking(selection, candidates[start:] + candidates[:start]) for start in STARTS]
    return Drawn(
        accuracy=fmean(ranking.candidates[ranking.best].answer == answer for ranking in rankings),
        share=fmean(len(ranking.candidates) / samples.NUM_SAMPLES for ranking in rankings),
        tokens=fmean(sum(candidate.tokens for candidate in ranking.candidates) for ranking in rankings),
        settled=fmean(ranking.settled is not None for ranking in rankings),
    )


def measure(split: str, num_problems: int, num_processes: int) -> dict[str, Any]:
    """Return all figures of a split."""
    samples.make(FOLDER, split, num_problems)  # type: ignore[arg-type]
    with ProcessPoolExecutor(num_processes) as pool:
        work = partial(examine, split=split, num_problems=num_problems)
        examined = list(pool.map(work, range(num_problems), chunksize=4))
    figures: dict[str, Any] = {"split": split, "num_problems": num_problems, "temperatures": {}}
    for temperature in samples.TEMPERATURES:
        of_all = [of_one[temperature] for of_one in examined]
        figures["temperatures"][str(temperature)] = {
            name: {
                "accuracy": bootstrap_mean([of_one[name].accuracy for of_one in of_all]),
                "over_all": bootstrap_mean([one[name].accuracy - one[_whole(name)].accuracy for one in of_all]),
                "share": bootstrap_mean([of_one[name].share for of_one in of_all]),
                "tokens": fmean(of_one[name].tokens for of_one in of_all),
                "settled": fmean(of_one[name].settled for of_one in of_all),
            }
            for name in selections()
        }
    return figures


def _whole(name: str) -> str:
    """Return the name of the way that draws all samples and is otherwise the same."""
    return f"n = {samples.NUM_SAMPLES} | {name.partition(' | ')[2]}"


def table(figures: dict[str, Any], temperatures: Sequence[float] = samples.TEMPERATURES) -> str:
    """Return the figures of some temperatures as Markdown."""
    whole = f"n = {samples.NUM_SAMPLES}"
    lines = [f"| T | vote | drawn | samples | tokens | accuracy | points over {whole} |", "|---" * 7 + "|"]
    for temperature in temperatures:
        for name, of_one in figures["temperatures"][str(temperature)].items():
            way, _, vote = name.partition(" | ")
            words = f"`{way}`" if way in STOP_RULES else way
            share, tokens, accuracy = of_one["share"][0], of_one["tokens"], of_one["accuracy"][0]
            over = "" if way == whole else points(of_one["over_all"])
            lines.append(
                f"| {temperature} | {vote} | {words} | {100 * share:.0f} % | {tokens:.0f} | {accuracy:.3f} | {over} |"
            )
    return "\n".join([*lines, "", f"{figures['num_problems']} problems of the {figures['split']} split."])


def publish(figures: dict[str, Any], file: Path) -> None:
    """Put a table into the documentation, or into the README of the benchmarks, which has all temperatures."""
    is_of_benchmarks = file.resolve().parent.name == "benchmarks"
    put(file, "adaptive n", table(figures, samples.TEMPERATURES if is_of_benchmarks else samples.TEMPERATURES[:1]))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=tuple(NUM_PROBLEMS), default="test")
    parser.add_argument("--num-problems", type=int)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the tables into the documents")
    arguments = parser.parse_args()
    num_problems = arguments.num_problems or NUM_PROBLEMS[arguments.split]
    figures = rounded(measure(arguments.split, num_problems, arguments.processes))
    name = "adaptive" if arguments.split == "test" else f"adaptive-{arguments.split}"
    (ROOT / "benchmarks" / "results" / f"{name}.json").write_text(json.dumps(figures) + "\n")
    print(table(figures))
    if arguments.write:
        for file in (ROOT / "docs" / "selection.md", ROOT / "benchmarks" / "README.md"):
            publish(figures, file)


if __name__ == "__main__":
    main()

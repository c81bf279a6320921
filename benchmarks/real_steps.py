"""Which intensity tells wrong steps of real models from right ones? Equations in their steps are checked.

    python -m benchmarks.real_steps coder-0.5b --write

Reads what `real_samples.py` drew. A step is wrong where an equation in it is ("4 * 7 = 26"), right where it has some
and all are; others are left out. Each step has its intensity by `"layer"` and by `"token"` against the answers to the
train problems, for which those of the other half serve, and its rank among the steps of these answers. AUROC is of
wrong steps having the lower intensity, within answers that have both kinds; 95 % bootstrap intervals over answers.
"""

from __future__ import annotations

import argparse
import ast
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.documents import put
from benchmarks.real_candidates import Answer, Reader, columns_of, usual_norms
from benchmarks.real_selection import RESULTS, ROOT
from benchmarks.selection import rounded
from langnorm.evaluation.intervals import with_bounds
from langnorm.evaluation.statistics import auroc, bootstrap_mean
from langnorm.norms.layers import select_layers
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.step_ranks import IntensityKind, rank_among
from langnorm.norms.token_table import TokenTable, shares_below
from langnorm.text.reasoning import Segment
from langnorm.text.steps import StepSpan, split_steps

KINDS: tuple[IntensityKind, ...] = ("layer", "token")
LOW_RANKS = (0.05, 0.1, 0.2)
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_EQUATION = re.compile(
    r"(?<![\w.=])([-(\d][-+*/().\d ]*[-+*/][-+*/().\d ]*?)=\s*(-?\d+(?:\.\d+)?)(?!\.?\d|\w|\s*(?:[-+*/^(%]|\\%))"
)
_OPERATIONS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def are_right(text: str) -> list[bool]:
    """Return for each equation of numbers in a text whether both sides are the same, to the digits that are given."""
    text = _FRACTION.sub(r"(\1)/(\2)", text.replace("\\left", "").replace("\\right", ""))
    for sign, plain in (("\\times", "*"), ("×", "*"), ("\\cdot", "*"), ("\\div", "/"), ("÷", "/"), ("−", "-")):
        text = text.replace(sign, plain)
    text = _THOUSANDS.sub("", text)
    for mark in ("\\$", "$", "\\(", "\\)", "\\[", "\\]"):
        text = text.replace(mark, " ")
    return list(_checked(text))


def _checked(text: str) -> Iterator[bool]:
    for match in _EQUATION.finditer(text):
        left, right = match.groups()
        try:
            value = _value(ast.parse(left.strip(), mode="eval").body)
        except (SyntaxError, ValueError, ZeroDivisionError):
            continue
        digits = len(right.partition(".")[2])
        yield abs(value - float(right)) <= 0.51 * 10.0**-digits if digits else abs(value - float(right)) < 0.5


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return float(_OPERATIONS[type(node.op)](_value(node.left), _value(node.right)))
    msg = f"{ast.dump(node)} is no arithmetic"
    raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Step:
    """A step of an answer.

    Attributes:
        intensities: By kind.
        is_wrong: Whether an equation in it is wrong; None where there is none.
    """

    intensities: Mapping[IntensityKind, float]
    is_wrong: bool | None


class Ruler:
    """Measures the steps of answers against those to other problems.

    Args:
        known: Answers to compare with.
    """

    def __init__(self, known: Sequence[Answer]) -> None:
        self._layers = select_layers("late", known[0].means.shape[1])
        self._columns = columns_of(self._layers, known[0].means.shape[1])
        self._sketch = QuantileSketch(self._layers)
        for answer in known:
            self._sketch.update(torch.from_numpy(answer.norms[:, self._columns]))
        self._usual: TokenTable = usual_norms(known).select(self._layers)
        steps = [step for answer in known for step in self.steps(answer)]
        self.ranked = {kind: sorted(step.intensities[kind] for step in steps) for kind in KINDS}

    def steps(self, answer: Answer) -> list[Step]:
        """Return the steps of an answer whose tokens were run."""
        norms = answer.norms[:, self._columns]
        shares: dict[IntensityKind, np.ndarray] = {
            "layer": self._sketch.percentile(norms),
            "token": shares_below(self._usual.relative(answer.ids, norms)),
        }
        pieces = [Segment(part="answer", text=text, token=i) for i, text in enumerate(answer.pieces) if text]
        found = []
        for span in split_steps(pieces):
            if len(rows := range(span.start, min(span.end, len(norms)))):
                equations = are_right(_text(answer, span))
                intensities = {kind: float(shares[kind][rows].mean()) for kind in KINDS}
                found.append(Step(intensities, not all(equations) if equations else None))
        return found


def _text(answer: Answer, span: StepSpan) -> str:
    return "".join(answer.pieces[span.start : span.end])


def measure(model: str) -> dict[str, Any]:
    """Return the figures of a model."""
    reader = Reader(model)
    train = reader.answers("train")
    halves = [[answer for answer in train if answer.problem % 2 == half] for half in (0, 1)]
    figures: dict[str, Any] = {"model": model}
    by_half = [Ruler(half) for half in reversed(halves)]
    whole = Ruler(train)
    for split in ("train", "test"):
        judged = []
        for answer in reader.answers(split):
            ruler = by_half[answer.problem % 2] if split == "train" else whole
            judged.append([(step, ruler) for step in ruler.steps(answer)])
        figures[split] = _figures(judged)
    return figures


def _figures(judged: Sequence[Sequence[tuple[Step, Ruler]]]) -> dict[str, Any]:
    everything = [step for of_answer in judged for step in of_answer]
    checked = [step for step, _ in everything if step.is_wrong is not None]
    figures: dict[str, Any] = {
        "steps": len(everything),
        "checked": len(checked),
        "share_wrong": float(np.mean([step.is_wrong for step in checked])),
    }
    for kind in KINDS:
        areas = []
        for of_answer in judged:
            wrong, right = (
                [step.intensities[kind] for step, _ in of_answer if step.is_wrong is is_wrong]
                for is_wrong in (True, False)
            )
            if wrong and right:
                areas.append(auroc(right, wrong))
        intensities = [step.intensities[kind] for step, _ in everything]
        ranks = np.array([rank_among(step.intensities[kind], ruler.ranked[kind]) for step, ruler in everything])
        is_wrong = np.array([bool(step.is_wrong) for step, _ in everything])
        is_checked = np.array([step.is_wrong is not None for step, _ in everything])
        figures[kind] = {
            "auroc": bootstrap_mean(areas),
            "num_answers": len(areas),
            "lowest_hundredth": float(np.quantile(intensities, 0.01)),
            "below_a_tenth": float(np.mean(np.array(intensities) < 0.1)),
            "low": {
                str(limit): {
                    "share_low": float((ranks < limit).mean()),
                    "share_wrong": float(is_wrong[is_checked & (ranks < limit)].mean()),
                }
                for limit in LOW_RANKS
            },
        }
    return figures


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    train, test = figures["train"], figures["test"]
    lines = [
        f"`{figures['model']}`: {train['steps']:,} steps of answers to train problems and {test['steps']:,} to test "
        f"problems, {train['checked']:,} and {test['checked']:,} with equations, of which {train['share_wrong']:.1%} "
        f"and {test['share_wrong']:.1%} are wrong.",
        "",
        "| `intensity` | AUROC, train | AUROC, test | below 0.1 | low at rank 0.1, test | wrong among these, test |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        areas = [with_bounds(part[kind]["auroc"]) for part in (train, test)]
        low = test[kind]["low"]["0.1"]
        cells = [*areas, f"{test[kind]['below_a_tenth']:.2%}", f"{low['share_low']:.1%}", f"{low['share_wrong']:.1%}"]
        lines.append(f'| `"{kind}"` | {" | ".join(cells)} |')
    return "\n".join(lines)


def summary(figures: Mapping[str, Any]) -> str:
    """Return in words what low steps are worth."""
    test = figures["test"]
    low = test["layer"]["low"]["0.1"]
    by_layer, by_token = (with_bounds(test[kind]["auroc"]) for kind in KINDS)
    return (
        f"`{figures['model']}` on GSM8K: of the steps with equations that rank lowest (`low_below=0.1`), "
        f"{low['share_wrong']:.1%} have a wrong one, of all {test['share_wrong']:.1%}. AUROC of intensity for right "
        f'steps against wrong ones of the same answer: {by_layer} by `"layer"`, {by_token} by `"token"`.'
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--write", action="store_true", help="put table and summary into the documents")
    parser.add_argument("--stored", action="store_true", help="of the figures that are there, without measuring")
    arguments = parser.parse_args()
    mark = f"real_steps-{arguments.model}"
    stored = RESULTS / f"{mark}.json"
    if not arguments.stored:
        stored.write_text(json.dumps(rounded(measure(arguments.model)), indent=1) + "\n")
    figures = json.loads(stored.read_text())
    print(table(figures))
    if arguments.write:
        put(ROOT / "benchmarks" / "README.md", mark, table(figures))
        for file in (ROOT / "README.md", ROOT / "docs" / "messages.md"):
            put(file, mark, summary(figures))


if __name__ == "__main__":
    main()

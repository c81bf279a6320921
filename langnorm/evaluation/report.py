"""What an evaluation has found: in Python, as Markdown, JSON and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from langnorm.evaluation.intervals import points, with_bounds
from langnorm.evaluation.methods import BASELINE
from langnorm.evaluation.statistics import Interval, bootstrap_mean, mcnemar
from langnorm.files import write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Scored:
    """What a method made of one question.

    Attributes:
        right: Whether its answer is right, 0 or 1; an expected share where it picks at random.
        is_cut: Whether the answer ended at the limit of tokens; likewise.
        tokens: Generated tokens, of all samples that it looked at.
        seconds: Time that these took, as a share of the batch that they ran in.
        error: Why there is no answer, or None.
        is_expected: Whether `right` and `is_cut` are expected shares.
    """

    right: float
    is_cut: float
    tokens: float
    seconds: float
    error: str | None = None
    is_expected: bool = False


@dataclass(frozen=True, slots=True)
class MethodResult:
    """How well a method did.

    Attributes:
        name: Of the method.
        description: What it does.
        accuracy: Share of right answers, with its 95 % bootstrap interval over questions.
        difference: The same less the baseline's, paired by question; None for the baseline.
        p_value: Of McNemar's exact test against the baseline; None for itself, and where shares are expected ones.
        share_cut: Share of answers that ended at the limit of tokens, 0 to 1.
        tokens: Generated tokens for each question, of all samples.
        seconds: Time for each question.
        num_errors: Questions to which there is no answer; they count as wrong.
    """

    name: str
    description: str
    accuracy: Interval
    difference: Interval | None
    p_value: float | None
    share_cut: float
    tokens: float
    seconds: float
    num_errors: int


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation has found.

    Attributes:
        task: Name of the task.
        model: Name of the model.
        n: Samples that selections chose from.
        num_problems: Number of questions.
        methods: One result for each method, the baseline first.
        first_error: Why a question has no answer, or None.
    """

    task: str
    model: str
    n: int
    num_problems: int
    methods: tuple[MethodResult, ...]
    first_error: str | None = None

    def __getitem__(self, name: str) -> MethodResult:
        return next(method for method in self.methods if method.name == name)

    def to_markdown(self) -> str:
        """Return the report as text with a table."""
        lines = [
            f"# {self.model} on {self.task}",
            "",
            f"{self.num_problems} questions; selections choose from {self.n} samples. Intervals are 95 % bootstrap "
            "intervals over questions, differences are paired; p is McNemar's exact test.",
            "",
            "| method | right | points over one answer | p | cut off | tokens | seconds | |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for method in self.methods:
            difference = "" if method.difference is None else points(method.difference)
            p_value = "" if method.p_value is None else f"{method.p_value:.2g}"
            cells = [method.name, with_bounds(method.accuracy), difference, p_value, f"{method.share_cut:.1%}"]
            cells += [f"{method.tokens:.0f}", f"{method.seconds:.2f}", method.description]
            lines.append(f"| {' | '.join(cells)} |")
        if self.first_error:
            num_errors = max(method.num_errors for method in self.methods)
            lines += ["", f"{num_errors} questions have no answer and count as wrong. The first: {self.first_error}"]
        return "\n".join(lines) + "\n"

    def save(self, folder: Path) -> None:
        """Write `report.md`, `report.json` and, where matplotlib is installed, `report.png` into a folder."""
        write_atomically(folder / "report.json", json.dumps(asdict(self), indent=1) + "\n")
        write_atomically(folder / "report.md", self.to_markdown())
        if find_spec("matplotlib"):
            _plot(self, folder / "report.png")


def build_report(task: str, model: str, n: int, scored: Mapping[str, tuple[str, Sequence[Scored]]]) -> Report:
    """Return the report of what each method made of the questions: its description and a row for each question."""
    base = _right(scored[BASELINE][1])
    errors = [row.error for _, rows in scored.values() for row in rows if row.error]
    return Report(
        task=task,
        model=model,
        n=n,
        num_problems=len(base),
        methods=tuple(_result(name, words, rows, base) for name, (words, rows) in scored.items()),
        first_error=errors[0] if errors else None,
    )


def _right(rows: Sequence[Scored]) -> NDArray[np.float64]:
    return np.array([row.right for row in rows])


def _result(name: str, description: str, rows: Sequence[Scored], base: NDArray[np.float64]) -> MethodResult:
    right = _right(rows)
    is_compared, is_plain = name != BASELINE, not any(row.is_expected for row in rows)
    return MethodResult(
        name=name,
        description=description,
        accuracy=bootstrap_mean(right),
        difference=bootstrap_mean(right - base) if is_compared else None,
        p_value=mcnemar(right, base) if is_compared and is_plain else None,
        share_cut=float(np.mean([row.is_cut for row in rows])),
        tokens=float(np.mean([row.tokens for row in rows])),
        seconds=float(np.mean([row.seconds for row in rows])),
        num_errors=sum(row.error is not None for row in rows),
    )


def _plot(report: Report, file: Path) -> None:
    """Draw the accuracy of each method with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 0.9 + 0.38 * len(report.methods)), layout="constrained")
    axes = figure.subplots()
    names = [method.name for method in report.methods]
    for place, method in enumerate(report.methods):
        mean, low, high = method.accuracy
        axes.plot([low, high], [place, place], color="#9aa0a6", linewidth=2, solid_capstyle="round")
        axes.plot([mean], [place], marker="o", color="#0072b2")
    axes.axvline(report.methods[0].accuracy.mean, color="#9aa0a6", linewidth=0.8, linestyle=":")
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="share of right answers")
    axes.set_title(f"{report.model} on {report.task}", loc="left", fontsize=10)
    axes.invert_yaxis()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(file, dpi=150)

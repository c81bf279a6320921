"""Which candidates of a selection stop before they are finished: decisions on scores alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from langnorm.checks import check_choice, check_integer, check_number

Rule = Literal["halving", "threshold"]
RULES: tuple[str, ...] = get_args(Rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """When candidates are stopped early.

    Attributes:
        rule: `"halving"` ranks at every checkpoint all candidates that were not stopped before, finished or not, and
            stops those of the lower half that still run. `"threshold"` waits until `first` candidates have finished,
            and stops those that still run with a score below the `quantile` of the finished ones' scores.
        every: Tokens between two checkpoints.
        least: So many of the best candidates, finished or not, are never stopped.
        first: See `rule`.
        quantile: See `rule`; 0 is the lowest score of the finished ones, 0.5 their median.

    Raises:
        OptionError: A value is not allowed.
    """

    rule: Rule = "halving"
    every: int = 64
    least: int = 2
    first: int = 3
    quantile: float = 0.25

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, RULES, owner="prune")
        for name in ("every", "least", "first"):
            check_integer(name, getattr(self, name), low=1, owner="prune")
        check_number("quantile", self.quantile, low=0, high=1, owner="prune")

    def stopped(self, scores: Sequence[float | None], running: Sequence[bool]) -> list[int]:
        """Return which candidates stop at a checkpoint.

        Args:
            scores: Of all candidates that were not stopped before, finished or not: higher is better, of equals the
                first. One that cannot be scored is left alone and not counted.
            running: Which of them are unfinished.
        """
        score_of = {i: score for i, score in enumerate(scores) if score is not None}
        ranked = sorted(score_of, key=lambda i: (-score_of[i], i))
        if self.rule == "halving":
            doomed = ranked[max(self.least, (len(ranked) + 1) // 2) :]
        else:
            finished = [score for i, score in score_of.items() if not running[i]]
            if len(finished) < self.first:
                return []
            threshold = float(np.quantile(finished, self.quantile))
            doomed = [i for i in ranked[self.least :] if score_of[i] < threshold]
        return sorted(i for i in doomed if running[i])

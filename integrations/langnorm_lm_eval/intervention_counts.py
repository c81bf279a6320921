"""How often interventions acted in a run: one that never does, or always does, tells nothing about a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class _Counts:
    answers: int = 0
    answers_acted_on: int = 0
    actions: int = 0


@dataclass(slots=True)
class InterventionCounts:
    """Counts over the answers of a run."""

    num_tokens: int = 0
    """Of all answers."""
    _by_name: dict[str, _Counts] = field(default_factory=dict)

    def add(self, reports: Mapping[str, Any], num_tokens: int) -> None:
        """Count what was done to one answer.

        Args:
            reports: Of its interventions, by their names, as `Completion.interventions` has them.
            num_tokens: Of the answer.
        """
        self.num_tokens += num_tokens
        for name, report in reports.items():
            counts = self._by_name.setdefault(name, _Counts())
            num_actions = _num_actions(name, report)
            counts.answers += 1
            counts.answers_acted_on += num_actions > 0
            counts.actions += num_actions

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Return the counts by intervention: answers, those that were acted on, and actions on a token in a layer."""
        return {
            name: {
                "answers": counts.answers,
                "answers_acted_on": counts.answers_acted_on,
                "actions": counts.actions,
                "tokens": self.num_tokens,
            }
            for name, counts in self._by_name.items()
        }

    def lines(self) -> list[str]:
        """Return the counts in words, a line for each intervention."""
        return [
            f"{name} acted on {counts.answers_acted_on} of {counts.answers} answers, {counts.actions} times in "
            f"{self.num_tokens} tokens"
            for name, counts in self._by_name.items()
        ]


def _num_actions(name: str, report: Mapping[str, Any]) -> int:
    """Return how often an intervention acted on a token in a layer."""
    if name == "recursion":
        return sum(layer["triggered"] for layer in report["layers"].values())
    if name == "steering":
        return len(report["injections"])
    return sum(report["suppressed"].values())

"""The problems that a probe asks a model, with reasoning and without: those of a task of `langnorm eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langnorm.checks import check_integer, refuse
from langnorm.errors import OptionError
from langnorm.evaluation.tasks import ABACUS, Item, Task, load_task
from langnorm.probes.answering import Asked

DIRECT = "{question}\n\nAnswer with nothing but the final answer in \\boxed{{}}, without any reasoning."
"""The prompt of a problem that is to be answered at once."""

_LONGEST_DIRECT = 0.5  # of the length of reasoned answers; what is longer is no direct answer


@dataclass(frozen=True, slots=True)
class Problem:
    """A question of a task.

    Attributes:
        task: The task.
        item: The question and its answer.
    """

    task: Task
    item: Item

    def asked(self, settings: Mapping[str, Any], *, is_direct: bool = False) -> Asked:
        """Return the problem with the settings of its call, as it is asked with or without reasoning.

        Abacus knows one form of question, and answers at once where its template leaves no room to think.
        """
        is_bundled = self.task.name == ABACUS
        if is_direct and is_bundled:
            settings = {**settings, "enable_thinking": False}
        prompt = self.task.prompt(self.item)
        if is_direct and not is_bundled:
            prompt = DIRECT.format(question=self.item.question)
        return Asked([{"role": "user", "content": prompt}], settings)

    @property
    def decisive(self) -> list[str]:
        """What decides the answers to the problem, and which of them are right, in plain types."""
        return [self.task.prompt(self.item), self.item.answer, self.task.form]

    def is_right(self, text: str) -> bool:
        """Return whether an answer states the right one."""
        return self.task.read(text) == self.item.answer


def read_problems(source: str, num_problems: int | None = None) -> list[Problem]:
    """Return the problems of a task.

    Args:
        source: A file, or `"abacus"`, as `load_task` takes it.
        num_problems: How many, from the first.

    Raises:
        OptionError: The task cannot be read, or has too few.
    """
    task = load_task(source, num_problems=num_problems)
    if num_problems is not None and len(task.items) < num_problems:
        msg = f"`{source}` has {len(task.items)} problems, and {num_problems} were asked for. Ask for fewer."
        raise OptionError(msg)
    return [Problem(task, item) for item in task.items]


def are_direct(reasoned_length: float, direct_length: float) -> bool:
    """Return whether answers that were to be given at once were, by the mean number of tokens of both kinds."""
    return direct_length <= _LONGEST_DIRECT * reasoned_length


def check_seeds(seeds: object) -> None:
    """Raise `OptionError` unless a value is a list of at least one seed, each once: its answers would count again."""
    if isinstance(seeds, str) or not isinstance(seeds, Sequence) or not seeds:
        refuse("seeds", seeds, "a list of at least one integer")
    for seed in seeds:
        check_integer("seeds", seed, low=0)
    if len(set(seeds)) < len(seeds):
        refuse("seeds", seeds, "each seed once")


def seed_of(seed: int, number: int) -> int:
    """Return the seed of the answer to a problem by its number, so that no two problems share their draws."""
    return seed * 1_000_003 + number

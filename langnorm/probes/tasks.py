"""The problems that a probe asks a model, of a file or Abacus' own, and whether an answer is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from langnorm.checks import check_integer, refuse
from langnorm.errors import OptionError
from langnorm.probes.answering import Asked
from langnorm.selection.answers import read_answer
from langnorm.selection.statements import stated_answer, stated_number
from langnorm.stored import Stored, StoredForm

BUNDLED_TASKS = "abacus"
"""Arithmetic of Abacus' development split, which it was neither trained on nor is measured with."""
INSTRUCTION = "Solve this step by step, and end with the final answer in \\boxed{}."
DIRECT_INSTRUCTION = "Answer with nothing but the final answer in \\boxed{}, without any reasoning."


@dataclass(frozen=True, slots=True)
class Task:
    """A problem.

    Attributes:
        question: What it asks.
        messages: As a chat model takes it, asked to reason.
        direct_messages: The same, asked to answer at once.
        answer: The right answer.
        thinks_by_template: Whether it is the option `enable_thinking` that has it answered at once.
    """

    question: str
    messages: list[dict[str, Any]]
    direct_messages: list[dict[str, Any]]
    answer: str
    thinks_by_template: bool = False

    def asked(self, settings: Mapping[str, Any], *, is_direct: bool = False) -> Asked:
        """Return the problem with the settings of its call, as it is asked with or without reasoning."""
        if is_direct and self.thinks_by_template:
            settings = {**settings, "enable_thinking": False}
        return Asked(self.direct_messages if is_direct else self.messages, settings)

    def is_right(self, text: str) -> bool:
        """Return whether an answer states the right one: the same number, or else the same words."""
        number = stated_number(self.answer)
        if number is not None:
            return read_answer("number", text) == number
        expected = stated_answer(self.answer)
        return expected is not None and read_answer("auto", text) == expected


def check_seeds(seeds: object) -> None:
    """Raise `OptionError` unless a value is a list of at least one seed."""
    if isinstance(seeds, str) or not isinstance(seeds, Sequence) or not seeds:
        refuse("seeds", seeds, "a list of at least one integer")
    for seed in seeds:
        check_integer("seeds", seed, low=0)


def seed_of(seed: int, number: int) -> int:
    """Return the seed of the answer to a problem by its number, so that no two problems share their draws."""
    return seed * 1_000_003 + number


class _Line(Stored):
    """A line of a file of problems; GSM8K's answers end with `#### 42`."""

    model_config = ConfigDict(extra="allow")

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)


_LINE = StoredForm(_Line, "a problem", "Give JSON lines, each with a `question` and an `answer`, as GSM8K has them.")


def read_tasks(source: str, num_tasks: int | None = None) -> list[Task]:
    r"""Return problems.

    Args:
        source: The path of a file of JSON lines with `question` and `answer` each, of which what follows `####` counts,
            if anything does; or `"abacus"`.
        num_tasks: How many, from the first; None for all of a file, and for 100 of Abacus'.

    Raises:
        OptionError: The file cannot be read, is empty, has too few, or a line is no problem.
    """
    if source == BUNDLED_TASKS and not Path(source).is_file():
        return _bundled(100 if num_tasks is None else num_tasks)
    lines = [*_LINE.read_lines(source)]
    if not lines or (num_tasks is not None and len(lines) < num_tasks):
        msg = f"`{source}` has {len(lines)} problems{f', and {num_tasks} were asked for' if lines else ''}. Give more."
        raise OptionError(msg)
    return [
        Task(
            line.question,
            [{"role": "user", "content": f"{line.question}\n\n{INSTRUCTION}"}],
            [{"role": "user", "content": f"{line.question}\n\n{DIRECT_INSTRUCTION}"}],
            line.answer.rpartition("####")[2].strip(),
        )
        for line in lines[:num_tasks]
    ]


def _bundled(num_tasks: int) -> list[Task]:
    from langnorm.abacus.generator import arithmetic, corpus

    return [
        Task(corpus.problem_of(example), [*example.prompt], [*example.prompt], example.answer, thinks_by_template=True)
        for example in corpus.held_out(arithmetic.draw, num_tasks, "dev")
        if example.answer is not None
    ]

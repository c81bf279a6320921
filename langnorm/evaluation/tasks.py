"""Tasks of questions with one right answer each: from JSON lines, such as GSM8K's, or Abacus' held-out problems."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langnorm.errors import OptionError
from langnorm.selection.answers import AnswerForm, check_answer_form, name_of_form, read_answer
from langnorm.selection.values import even

ABACUS = "abacus"
"""The task of this name are held-out arithmetic problems of 4 to 12 steps for the bundled model."""

QUESTION = "{question}"
STEP_BY_STEP = "{question}\n\nSolve this step by step, and end with the final answer as a number in \\boxed{{}}."
"""The prompt of a task of numbers: with it, small models end with an answer that can be read."""

_MARK = "####"  # before the answer of a solution of GSM8K


@dataclass(frozen=True, slots=True)
class Item:
    """A question.

    Attributes:
        question: What is asked.
        answer: The right answer, as answers of the model are read; equal to one that is right.
    """

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """Questions with one right answer each.

    Attributes:
        name: What reports call it.
        items: The questions, in order.
        template: The prompt, with `{question}` where the question goes.
        answer: How an answer is read from a response: as the option `answer` of a selection.
    """

    name: str
    items: tuple[Item, ...]
    template: str = QUESTION
    answer: AnswerForm = field(default="auto")

    def __post_init__(self) -> None:
        check_answer_form(self.answer)
        if not self.items:
            msg = f"The task `{self.name}` has no questions. Give at least one."
            raise OptionError(msg)
        try:
            filled = self.template.format(question="")
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            msg = f"`template={self.template!r}` cannot be filled in ({error}). Write `{{{{` for a brace of its own."
            raise OptionError(msg) from error
        if filled == self.template.format(question="?"):
            msg = f"`template={self.template!r}` has no place for the question. Write `{{question}}` where it goes."
            raise OptionError(msg)

    def prompt(self, item: Item) -> str:
        """Return what the model is asked."""
        return self.template.format(question=item.question)

    def read(self, text: str) -> str | None:
        """Return the answer that a response states, or None."""
        return read_answer(self.answer, text)

    @property
    def form(self) -> str:
        """How answers are read, in a word."""
        return name_of_form(self.answer)


def load_task(
    source: str | Path,
    *,
    num_problems: int | None = None,
    template: str | None = None,
    answer: AnswerForm | None = None,
) -> Task:
    """Return the task in a file, or Abacus' own.

    Args:
        source: The path of a file with a JSON object with `question` and `answer` a line, or `"abacus"`. Of an answer
            in GSM8K's form, a solution whose last line is `#### 42`, what follows the mark is the answer.
        num_problems: How many of the first questions are taken; by default all, and 200 of Abacus.
        template: The prompt, with `{question}`; by default the question alone, and where all answers are numbers, the
            question and `STEP_BY_STEP`.
        answer: How answers are read; by default `"number"` where all right ones are numbers, else `"auto"`.

    Raises:
        OptionError: There is no such file, or a line of it is no question; the message says which and why.
    """
    if str(source) == ABACUS:
        items = _abacus(200 if num_problems is None else num_problems)
        return Task(ABACUS, items, template or QUESTION, answer or "number")
    path = Path(source)
    try:
        # Lines end with a line feed and nothing else: texts have other characters that `splitlines` takes for ends.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        msg = f'`{str(source)[:200]}` cannot be read ({why}). Give a file of JSON lines, or "{ABACUS}".'
        raise OptionError(msg) from error
    rows = [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()][:num_problems]
    has_numbers = all(_is_number(right) for _, right in rows)
    form: AnswerForm = answer or ("number" if has_numbers else "auto")
    items = tuple(Item(question, _right(form, right)) for question, right in rows)
    return Task(path.stem, items, template or (STEP_BY_STEP if has_numbers else QUESTION), form)


def _right(form: AnswerForm, right: str) -> str:
    """Return a right answer as it is read from responses: it is the answer itself, and no sentence that states one."""
    found = None if form == "auto" else read_answer(form, right)
    return found or even(right) or right


def _is_number(right: str) -> bool:
    """Return whether a right answer is a number: of `(2, 3)` or `x = 3, y = 4`, a number is only a part."""
    number = read_answer("number", right)
    return number is not None and number == read_answer("auto", right) and len(right) < 40


def _row(path: Path, number: int, line: str) -> tuple[str, str]:
    """Return question and right answer of a line."""
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        msg = f"Line {number} of `{path}` is no JSON ({error})."
        raise OptionError(msg) from error
    values = [row.get(name) if isinstance(row, dict) else None for name in ("question", "answer")]
    question, right = (str(value) if isinstance(value, int | float) else value for value in values)
    right = right.rpartition(_MARK)[2].strip() if isinstance(right, str) else None
    if not isinstance(question, str) or not question.strip() or not right:
        msg = f'Line {number} of `{path}` needs a "question" and an "answer", both texts that are not empty.'
        raise OptionError(msg)
    return question, right


def _abacus(num_problems: int) -> tuple[Item, ...]:
    from functools import partial

    from langnorm.abacus.generator import arithmetic, corpus

    draw = partial(arithmetic.draw, level="hard", enable_thinking=True)
    examples = corpus.held_out(draw, num_problems, "test")
    return tuple(Item(corpus.problem_of(example), str(example.answer)) for example in examples)

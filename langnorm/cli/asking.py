"""What commands that ask a question share: the question, some settings, and how several answers are ranked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langnorm.cli.options import NO_SCORE
from langnorm.engines.registry import BUNDLED_MODEL
from langnorm.errors import OptionError, PromptError
from langnorm.norms.baseline import AUTO

if TYPE_CHECKING:
    from langnorm.selection.options import Selection

_SAMPLING_TEMPERATURE = 0.7  # of Abacus where several answers are to differ; other models have one of their own


def read_question(question: str, example: str) -> str:
    """Return the question, or what comes from standard input for `-`.

    Raises:
        PromptError: It is empty; the message has an example.
    """
    text = sys.stdin.read() if question == "-" else question
    # A terminal that is not set to UTF-8 can give half characters, which no tokenizer takes.
    text = text.encode(errors="replace").decode().strip()
    if not text:
        command = " ".join(example.split()[:2])
        msg = f"The question is empty. Give one, such as `{example}`, or pipe one in: `echo ... | {command} -`."
        raise PromptError(msg)
    return text


def messages_of(system: str | None, question: str) -> list[tuple[str, str]]:
    """Return the messages of a question."""
    return [*([("system", system)] if system else []), ("human", question)]


def temperature_of(temperature: float | None, model: str, *, is_sampling: bool) -> float | None:
    """Return the temperature that was asked for, or that of the bundled model, which has none of its own."""
    if temperature is None and model == BUNDLED_MODEL:
        return _SAMPLING_TEMPERATURE if is_sampling else 0
    return temperature


def profile_of(path: Path | None) -> Any:
    """Return the profile of a file, or that the model's own is to be looked for.

    Raises:
        OptionError: The file is no profile.
    """
    from langnorm.norms.profile import NormProfile

    return NormProfile.load(path) if path else AUTO


def selection_of(
    select: int | None,
    *,
    score: str | None = None,
    combine: str | None = None,
    vote: str | None = None,
    stop: str | None = None,
) -> Selection | None:
    """Return how the best of several answers is chosen, or None where there is only one.

    Raises:
        OptionError: A value is not allowed, or there are no several answers to choose from.
    """
    given: dict[str, Any] = {"combine": combine, "vote": vote, "stop": stop}
    given = {name: value for name, value in given.items() if value is not None}
    if score is not None:
        given["score"] = _parse_score(score)
    if select is None:
        if given:
            msg = f"`--{next(iter(given))}` is about the choice among several answers. Add `--select N`."
            raise OptionError(msg)
        return None
    from langnorm.selection.options import Selection

    return Selection(n=select, **given)


def _parse_score(text: str) -> str | dict[str, float] | None:
    """Return a score as the option `score` takes it: a name, weights by name, or None.

    Raises:
        OptionError: A weight is no number, or a score has two.
    """
    if text == NO_SCORE:
        return None
    if "=" not in text:
        return text
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        if name.strip() in weights:
            msg = f"`--score {text}` has two weights of `{name.strip()}`. Give each score one."
            raise OptionError(msg)
        try:
            weights[name.strip()] = float(weight)
        except ValueError:
            msg = f"`--score {text}` is not allowed. Give a name, or weights such as `mean_logprob=1,late_rate=0.5`."
            raise OptionError(msg) from None
    return weights

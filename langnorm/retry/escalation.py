"""The schedule of retries: what each changes, so that it comes out differently than the attempts before it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from langnorm.chat.settings import check_call_options
from langnorm.errors import OptionError, closest
from langnorm.wrapped_models import is_langnorm, unwrap_model

DEFAULT_ESCALATION = ("resample", "recursion", "steering")
"""First draw again, then think some tokens over, then pull slack states."""

_NAMED: dict[str, dict[str, Any]] = {"resample": {}, "recursion": {"recursion": {}}, "steering": {"steering": {}}}
_TEMPERATURE = 0.7  # of a retry that greedy decoding would make a repetition
_MAKE_A_DIFFERENCE = {"model", "temperature", "enable_thinking"}  # recursion may find nothing to do
_UNDERSTOOD_BY_ALL = ("stop", "temperature", "max_tokens")  # by chat models of other packages too

Step = Mapping[str, Any] | BaseChatModel
"""What a retry changes: settings of the call, or the model that is called."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What a retry changes.

    Attributes:
        model: The model to call instead, or None.
        settings: Settings of the call, in addition to those that it has.
    """

    model: BaseChatModel | None
    settings: dict[str, Any]

    @property
    def changes(self) -> dict[str, Any]:
        """All of it, for the record."""
        return self.settings if self.model is None else {"model": self.model} | self.settings


def schedule(escalation: Any) -> tuple[Step, ...]:
    """Return the steps that a user means, checked.

    Args:
        escalation: Steps in the order of the retries; the last one serves all later retries. A step is a dict of
            settings of a call, another chat model, `"resample"`, `"recursion"` or `"steering"`. A single step may
            stand alone.

    Raises:
        OptionError: It is something else, or a setting is unknown or has a value that is not allowed.
    """
    if isinstance(escalation, str | Mapping | Runnable):
        escalation = (escalation,)
    steps = tuple(map(_step, escalation)) if isinstance(escalation, tuple | list) else ()
    if not steps:
        msg = f"`escalation={escalation!r}` is not allowed. Use a list of at least one step. {_ALLOWED}"
        raise OptionError(msg)
    return steps


_ALLOWED = 'A step is "resample", "recursion", "steering", a dict of settings of a call, or a chat model.'


def _step(step: Any) -> Step:
    if isinstance(step, str) and step in _NAMED:
        return _NAMED[step]
    if isinstance(step, BaseChatModel):
        return step
    if not isinstance(step, Mapping):
        hint = closest(step, _NAMED) if isinstance(step, str) else ""
        msg = f"`escalation` has the step `{step!r}`. {_ALLOWED}{hint}"
        raise OptionError(msg)
    check_call_options(step, "A step of `escalation`")
    return step


def retry_of(steps: tuple[Step, ...], number: int, llm: Any, given: Mapping[str, Any]) -> Retry:
    """Return what a retry changes.

    Every retry has a seed of its own: where the seed is fixed, that seed plus the number of the retry, else a random
    one. As a setting of the call it also keeps a cache from answering with the attempt before. A greedy call that would
    repeat itself is sampled.

    Args:
        steps: The schedule.
        number: Of the retry, from 1.
        llm: The chat model that made the first attempt, with what it may be wrapped in.
        given: Settings of the call.
    """
    step = steps[min(number, len(steps)) - 1]
    model, bound = unwrap_model(llm)
    given = {**bound, **given}
    other = None if isinstance(step, Mapping) else step
    settings = dict(step) if isinstance(step, Mapping) else {}
    if other is not None:
        if not is_langnorm(other):
            return Retry(other, {})
        model, given = other, carried_over(other, given)
    seed = settings.get("seed", given.get("seed", getattr(model, "seed", None)))
    settings["seed"] = secrets.randbits(31) if seed is None else seed + number
    is_changed = other is not None or not _MAKE_A_DIFFERENCE.isdisjoint(settings)
    is_first = number <= len(steps)
    if not (is_changed and is_first) and "temperature" not in settings and _is_greedy(model, given):
        settings["temperature"] = _TEMPERATURE
    return Retry(other, settings)


def carried_over(other: BaseChatModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a call that another model is given too; the name of the first model is none."""
    if is_langnorm(other):
        return {name: value for name, value in given.items() if name != "model"}
    return {name: given[name] for name in _UNDERSTOOD_BY_ALL if name in given}


def _is_greedy(model: Any, given: Mapping[str, Any]) -> bool:
    """Return whether a call is known to give the same answer each time."""
    if not is_langnorm(model):
        return False
    asked = {name: given[name] for name in ("model", "temperature") if name in given}
    return not model.model_copy(update=asked).is_sampling()

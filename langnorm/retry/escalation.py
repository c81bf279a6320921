"""The escalation of retries: what each changes, so that it comes out differently than the attempts before it."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from langnorm.chat.answer_prefix import AnswerPrefix
from langnorm.chat.settings import CALL_NAMES, INTERVENTIONS, check_call_options, check_names
from langnorm.checks import brief, check_flag
from langnorm.errors import OptionError, closest
from langnorm.wrapped_models import is_langnorm, is_only_langnorm, unwrap_model

StepName = Literal["resample", "refine", "recursion", "steering"]
"""Short names of steps: draw again, go on from the last good step, think some tokens over, pull high norms together."""

EscalationStep = Mapping[str, Any] | BaseChatModel
"""What a retry changes: settings of the call, or the model that is called."""

EscalationOption = StepName | EscalationStep | Sequence[StepName | EscalationStep]
"""What the option `escalation` takes: steps in the order of the retries, or a single one."""

DEFAULT_ESCALATION: tuple[StepName, ...] = ("resample", "recursion", "steering")
"""First draw again, then think some tokens over, then pull states of high norm together; draw again where an engine
cannot do that."""


class _NamedStep(dict[str, Any]):
    """A step that was given by its name: a copy still is, and nobody's change of it is another's."""


_NAMED_STEPS: dict[str, dict[str, Any]] = {
    "resample": {},
    "refine": {"refine": True},
    "recursion": {"recursion": {}},
    "steering": {"steering": {}},
}
_ALLOWED_STEPS = (
    'A step is "resample", "refine", "recursion", "steering", a dict of settings of a call, or a chat model.'
)
_FIXED_FOR_REFINING = (  # both parts of an answer have them in common, or see all of it
    *("model", "enable_thinking", "special_tokens", "layers", "norms", "logprobs", "top_logprobs"),
    *("distribution", "lens", "selection", "n"),
    *INTERVENTIONS,
)
_PREFIX = "answer_prefix"
_TEMPERATURE = 0.7  # of a retry that greedy decoding would make a repetition
_MAKE_A_DIFFERENCE = {"model", "temperature", "enable_thinking"}  # recursion may find nothing to do
_UNDERSTOOD_BY_ALL = ("stop", "temperature", "max_tokens")  # by chat models of other packages too


@dataclass(frozen=True, slots=True)
class RetryChange:
    """What one attempt changes in the call; nothing for a first attempt.

    Attributes:
        model: The model to call instead, or None.
        settings: Settings of the call, in addition to those that it has.
    """

    model: BaseChatModel | None
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return all that is changed, by the names of settings.

        Another model is the setting `model`; `refine` is the number of tokens that the answer begins with.
        """
        changed = {name: value for name, value in self.settings.items() if name != _PREFIX}
        if _PREFIX in self.settings:
            changed["refine"] = len(self.settings[_PREFIX].token_ids)
        return changed if self.model is None else {"model": self.model} | changed


NO_CHANGE = RetryChange(None, {})
"""Of a first attempt."""


def resolve_escalation(escalation: EscalationOption) -> tuple[EscalationStep, ...]:
    """Return the steps of an escalation, checked; those of a checked one are the same.

    Args:
        escalation: Steps in the order of the retries; the last one serves all later retries. A step is a dict of
            settings of a call, which may also have `"refine": True`, another chat model, `"resample"`, `"refine"`,
            `"recursion"` or `"steering"`. A single step may stand alone.

    Raises:
        OptionError: It is something else, or a setting is unknown or has a value that is not allowed.
    """
    if isinstance(escalation, str | Mapping | Runnable):
        escalation = (escalation,)
    steps = tuple(map(_resolve_step, escalation)) if isinstance(escalation, tuple | list) else ()
    if not steps:
        msg = f"`escalation={brief(escalation)}` is not allowed. Use a list of at least one step. {_ALLOWED_STEPS}"
        raise OptionError(msg)
    return steps


def _resolve_step(step: Any) -> EscalationStep:
    if isinstance(step, str) and step in _NAMED_STEPS:
        return _NamedStep(copy.deepcopy(_NAMED_STEPS[step]))
    if isinstance(step, BaseChatModel):
        return step
    if not isinstance(step, Mapping):
        hint = closest(step, _NAMED_STEPS) if isinstance(step, str) else ""
        msg = f"`escalation` has the step `{brief(step)}`. {_ALLOWED_STEPS}{hint}"
        raise OptionError(msg)
    check_names(step, (*CALL_NAMES, "profile", "refine"), "A step of `escalation`")  # tools stay as the call has them
    check_flag("refine", step.get("refine", False), owner="escalation")
    check_call_options(_settings_of(step), "A step of `escalation`")
    if step.get("refine") and (fixed := next((name for name in step if name in _FIXED_FOR_REFINING), None)):
        msg = (
            f"A step of `escalation` refines an answer, and so cannot set `{fixed}`: what is kept of the answer was "
            "made without. Leave that out, or make two steps of it."
        )
        raise OptionError(msg)
    return step


def _settings_of(step: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in step.items() if name != "refine"}


def resolve_change(
    steps: Sequence[EscalationStep],
    num_retry: int,
    llm: Runnable[Any, Any],
    settings: Mapping[str, Any],
    beginning: AnswerPrefix | None = None,
) -> RetryChange:
    """Return what a retry changes.

    Every retry has a seed of its own: where the seed is fixed, that seed plus the number of the retry, else a random
    one. As a setting of the call it also keeps a cache from answering with the attempt before. A greedy call that would
    repeat itself is sampled. One that refines goes on from what is good of the best attempt; where nothing is, or the
    model is none of ours, it draws again.

    Args:
        steps: Those of a checked escalation.
        num_retry: Number of the retry, from 1.
        llm: The chat model that made the first attempt, with what it may be wrapped in.
        settings: Those of the call.
        beginning: Of the best attempt so far, the tokens before its first low step, or None where there are none.
    """
    step = steps[min(num_retry, len(steps)) - 1]
    model, bound_settings = unwrap_model(llm)
    call = {**bound_settings, **settings}
    other_model = None if isinstance(step, Mapping) else step
    changes = _possible_changes(step, model) if isinstance(step, Mapping) else {}
    if isinstance(step, Mapping) and step.get("refine") and beginning and is_only_langnorm(llm):
        changes[_PREFIX] = beginning
    if other_model is not None:
        if not is_langnorm(other_model):
            return RetryChange(other_model, {})
        model, call = other_model, settings_for(other_model, call)
    seed = changes.get("seed", call.get("seed", getattr(model, "seed", None)))
    changes["seed"] = secrets.randbits(31) if seed is None else seed + num_retry
    is_changed = other_model is not None or not _MAKE_A_DIFFERENCE.isdisjoint(changes)
    is_first_use = num_retry <= len(steps)
    if not (is_changed and is_first_use) and "temperature" not in changes and _is_greedy(model, {**call, **changes}):
        changes["temperature"] = _TEMPERATURE
    return RetryChange(other_model, changes)


def _possible_changes(step: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Return what a step changes; a named one draws again where the engine has not the intervention that it names."""
    if not isinstance(step, _NamedStep) or not is_langnorm(model):
        return _settings_of(step)  # what a user has written out is refused by the engine, which says why
    return {name: value for name, value in _settings_of(step).items() if model.is_able_to(name)}


def settings_for_refining(
    steps: Sequence[EscalationStep], llm: Runnable[Any, Any], change: RetryChange
) -> dict[str, Any]:
    """Return the settings with which the message of an attempt carries what a later one may go on from.

    There are none where no step refines, and where the attempt is made otherwise than one that goes on from it.

    Args:
        steps: Those of a checked escalation.
        llm: The chat model that makes the first attempt, with what it may be wrapped in.
        change: What the attempt changes.
    """
    is_refining = any(isinstance(step, Mapping) and step.get("refine") for step in steps)
    is_otherwise = change.model is not None or not set(_FIXED_FOR_REFINING).isdisjoint(change.settings)
    if not is_refining or is_otherwise or not is_only_langnorm(llm):
        return {}
    return {_PREFIX: AnswerPrefix()}


def settings_for(other_model: BaseChatModel, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of a call that are handed on when another model is called instead.

    A ChatLangNorm gets all but `model`, which names the first one; a model of another package gets what all understand.
    """
    if is_langnorm(other_model):
        return {name: value for name, value in settings.items() if name != "model"}
    return {name: settings[name] for name in _UNDERSTOOD_BY_ALL if name in settings}


def _is_greedy(model: Any, settings: Mapping[str, Any]) -> bool:
    """Return whether a call is known to give the same answer each time."""
    if not is_langnorm(model):
        return False
    sampling = {name: settings[name] for name in ("model", "temperature") if name in settings}
    return not model.model_copy(update=sampling).is_sampling()

"""The options of a call: their names, one check for each, and all of them together as a call resolves them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from langnorm.chat.answer_prefix import AnswerPrefix
from langnorm.chat.control_tokens import SpecialTokens
from langnorm.chat.tools import ToolUse, resolve_schema, resolve_tool_use
from langnorm.checks import build_options, check_choice, check_flag, check_integer, check_number, check_text, refuse
from langnorm.engines.options import Sampling
from langnorm.errors import OptionError, closest
from langnorm.interventions.options import Intervention, Recursion, Steering, Suppression
from langnorm.norms.baseline import ProfileOption, check_intensity, check_low_below, check_profile
from langnorm.norms.layers import LayerSelection, check_layers
from langnorm.norms.step_ranks import IntensityKind
from langnorm.norms.thresholds import ThresholdRule, readable_rule
from langnorm.selection.options import Selection
from langnorm.text.steps import Splitter, get_splitter

Norms = Literal["off", "steps", "tokens"]
"""What the option `norms` takes."""

MOST_TOP_LOGPROBS = 20
"""Most alternatives to a token that are reported, as with OpenAI."""

LONGEST_TIMEOUT = 4_000_000
"""Most seconds of a timeout: no platform's locks wait for longer than seven weeks."""

INTERVENTIONS: Mapping[str, type[Intervention]] = {kind.name: kind for kind in (Recursion, Steering, Suppression)}
"""The options of all interventions, by name, in the order in which they act."""

_SAMPLING_NAMES = tuple(field.name for field in fields(Sampling))
TOOL_NAMES = ("tools", "tool_choice", "parallel_tool_calls", "response_format")
"""What a call may set, and the constructor may not: which forms an answer may have."""
_ANSWER_NAMES = ("answer_prefix",)  # of calls alone
_WITHOUT_EFFECT = ("stream", "strict", "ls_structured_output_format")  # LangChain's own, which need nothing done


def _unless_none(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else check(name, value)


def _checked(check: Callable[..., None], **limits: Any) -> Callable[[str, Any], Any]:
    """Return a check that gives the value back as it is."""

    def checked(name: str, value: Any) -> Any:
        check(name, value, **limits)
        return value

    return checked


def _sampling_option(name: str, value: Any) -> Any:
    return value if value is None else getattr(Sampling(**{name: value}), name)


def _model(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike) or not str(value):
        refuse(name, value, 'a folder or a name, such as `"abacus"`')
    check_text(name, str(value))
    return str(value)


def _lens(_name: str, value: Any) -> LayerSelection | None:
    """Return the layers that are read, or None for no lens."""
    if value is True:
        return "late"
    if value is None or value is False:
        return None
    try:
        return check_layers(value)
    except OptionError:
        refuse("lens", value, 'True, or layers: "late", "deep", "middle", "all" or a list of indices')


def _profile(_name: str, value: Any) -> ProfileOption:
    check_profile(value)
    profile: ProfileOption = value
    return profile


def _low_below(_name: str, value: Any) -> float:
    check_low_below(value)
    return float(value)


def _intensity(_name: str, value: Any) -> IntensityKind:
    check_intensity(value)
    kind: IntensityKind = value
    return kind


def _options(kind: type[Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: build_options(kind, name, value)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "model": _model,
    **dict.fromkeys(_SAMPLING_NAMES, _sampling_option),
    "enable_thinking": _checked(check_flag),
    "special_tokens": _checked(check_choice, words=get_args(SpecialTokens)),
    "logprobs": _unless_none(_checked(check_flag)),
    "top_logprobs": _unless_none(
        _checked(check_integer, low=0, high=MOST_TOP_LOGPROBS, allowed=f"0 to {MOST_TOP_LOGPROBS}, or None")
    ),
    "distribution": _checked(check_flag),
    "lens": _lens,
    "norms": _checked(check_choice, words=get_args(Norms)),
    "layers": lambda _, value: check_layers(value),
    "norm_profile": _profile,
    "threshold": lambda _, value: readable_rule(value),
    "intensity": _intensity,
    "low_below": _low_below,
    "step_splitter": lambda _, value: get_splitter(value),
    **{name: _options(kind) for name, kind in INTERVENTIONS.items()},
    "selection": _options(Selection),
    "timeout": _unless_none(
        _checked(
            check_number,
            low=0,
            high=LONGEST_TIMEOUT,
            is_low_open=True,
            allowed=f"seconds above 0, up to {LONGEST_TIMEOUT:,}, or None for no limit",
        )
    ),
    "max_retries": _checked(check_integer, low=0, allowed="0 or above"),
    "max_batch_size": _checked(check_integer, low=1, allowed="1 or above"),
}

CALL_NAMES = tuple(_CHECKS)
"""What a call may set, as it may be set in the constructor."""

_ALL_NAMES = (*CALL_NAMES, *TOOL_NAMES, *_ANSWER_NAMES, *_WITHOUT_EFFECT, "profile")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSettings:
    """All options of one call, checked as far as that needs no model.

    Attributes:
        model: Name or folder of the model.
        sampling: Fields of `Sampling` that were set; the model's own configuration decides the others.
        enable_thinking: Whether the model may reason before it answers.
        special_tokens: What becomes of control tokens in the text of messages.
        top_logprobs: How many likely tokens are reported beside each one; None reports no log-probabilities.
        distribution: Whether messages keep how sure the model was of each token.
        lens: By which layers messages keep how late each token settled, or None.
        norms: What messages say of norms.
        layers: Which decoder layers are recorded.
        norm_profile: What norms are compared with.
        threshold: Which norms are high.
        intensity: What intensities are measured by.
        low_below: Rank among the steps of its model below which a step is low, 0 to 1.
        splitter: What a step is.
        interventions: The options of those that are on, by name.
        selection: How the one answer is chosen of several, or None.
        timeout: Most seconds that the call may take, or None.
        max_batch_size: Most sequences in one forward pass.
        tool_use: The tools that are offered, and whether one must be called.
        schema: What the answer is held to, or None.
        answer_prefix: What the answer begins with, or None.
    """

    model: str
    sampling: Mapping[str, Any]
    enable_thinking: bool
    special_tokens: SpecialTokens
    top_logprobs: int | None
    distribution: bool
    lens: LayerSelection | None
    norms: Norms
    layers: LayerSelection
    norm_profile: ProfileOption
    threshold: ThresholdRule
    intensity: IntensityKind
    low_below: float
    splitter: Splitter
    interventions: Mapping[str, Intervention]
    selection: Selection | None
    timeout: float | None
    max_batch_size: int
    tool_use: ToolUse
    schema: dict[str, Any] | None
    answer_prefix: AnswerPrefix | None


def resolve_settings(options: Mapping[str, Any], default: Callable[[str], Any]) -> CallSettings:
    """Return all options of a call, checked as far as that needs no model.

    Args:
        options: What the call sets.
        default: Returns the value of an option that it does not set.

    Raises:
        OptionError: An option is unknown, or its value is not allowed.
    """
    options = check_options(options)
    values = {name: options[name] if name in options else _CHECKS[name](name, default(name)) for name in CALL_NAMES}
    if values["selection"] and values["n"] != 1:
        msg = (
            f"`n={values['n']}` and `selection` do not go together: a selection returns one message. Say how many "
            "are sampled with `Selection(n=...)`, or switch it off with `selection=None`."
        )
        raise OptionError(msg)
    settings = CallSettings(
        model=values["model"],
        sampling={name: values[name] for name in _SAMPLING_NAMES if values[name] is not None},
        enable_thinking=values["enable_thinking"],
        special_tokens=values["special_tokens"],
        top_logprobs=_resolve_top_logprobs(values["logprobs"], values["top_logprobs"]),
        distribution=values["distribution"],
        lens=values["lens"],
        norms=values["norms"],
        layers=values["layers"],
        norm_profile=values["norm_profile"],
        threshold=values["threshold"],
        intensity=values["intensity"],
        low_below=values["low_below"],
        splitter=values["step_splitter"],
        interventions={name: values[name] for name in INTERVENTIONS if values[name]},
        selection=values["selection"],
        timeout=values["timeout"],
        max_batch_size=values["max_batch_size"],
        tool_use=resolve_tool_use(
            options.get("tools"), options.get("tool_choice"), is_parallel=options.get("parallel_tool_calls")
        ),
        schema=resolve_schema(options.get("response_format")),
        answer_prefix=options.get("answer_prefix"),
    )
    _check_answer_prefix(settings)
    return settings


def _check_answer_prefix(settings: CallSettings) -> None:
    """Raise `OptionError` where an answer cannot go on from a beginning and be what the model would have said."""
    prefix: object = settings.answer_prefix
    if prefix is None:
        return
    if not isinstance(prefix, AnswerPrefix):
        refuse("answer_prefix", prefix, "what `AnswerPrefix` holds, or None")
    mends = {
        "a schema or a forced call": (settings.schema or settings.tool_use.must_call, "leave that out"),
        "a selection": (settings.selection, "switch it off with `selection=None`"),
        "`distribution=True`": (settings.distribution, "leave that out"),
        "a `lens`": (settings.lens, "leave that out"),
        **{name: (True, f"switch it off with `{name}=None`") for name in settings.interventions},
    }
    for what, (is_on, mend) in mends.items():
        if is_on:
            msg = (
                f"An answer cannot go on from its last good step (`refine`) with {what}, which has to see all of it "
                f'from its start. Use another `escalation`, such as "resample", or {mend}.'
            )
            raise OptionError(msg)


def check_options(options: Mapping[str, Any], where: str = "This call") -> dict[str, Any]:
    """Return options of a call as they are used, each checked by itself; others than those of calls as they are.

    Args:
        options: By name.
        where: What has them, in words for the error.

    Raises:
        OptionError: An option is unknown, or its value is not allowed.
    """
    check_names(options, _ALL_NAMES, where)
    renamed = with_norm_profile(options)
    return {name: _CHECKS[name](name, value) if name in _CHECKS else value for name, value in renamed.items()}


def of_one(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a call that streams: of one answer, as there is no stream of several.

    Raises:
        OptionError: `n` is not allowed in any call.
    """
    if "n" in options:
        _CHECKS["n"]("n", options["n"])
    return {**options, "n": 1}


def check_call_options(options: Mapping[str, Any], where: str = "This call") -> None:
    """Do nothing if a call may have these options, tools and response formats among them.

    Raises:
        OptionError: An option is unknown, or its value is not allowed.
    """
    options = check_options(options, where)
    resolve_tool_use(options.get("tools"), options.get("tool_choice"), is_parallel=options.get("parallel_tool_calls"))
    resolve_schema(options.get("response_format"))


def with_norm_profile(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options whose `profile`, if it is about norms, has its own name, `norm_profile`.

    LangChain calls its description of a model's abilities `profile`; that is a dict, and left as it is.
    """
    renamed = dict(options)
    if "profile" in renamed and not isinstance(renamed["profile"], dict):
        renamed["norm_profile"] = renamed.pop("profile")
    return renamed


def check_names(options: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    """Raise `OptionError` with the closest name for an option that does not exist."""
    for name in options:
        if name not in allowed:
            hint = closest(name, allowed) or f" Use one of: {', '.join(allowed)}."
            msg = f"{where} has no option `{name}`.{hint}"
            raise OptionError(msg)


def _resolve_top_logprobs(logprobs: bool | None, top_logprobs: int | None) -> int | None:  # noqa: FBT001
    """Return how many likely tokens are reported beside each one; None for no log-probabilities at all."""
    if logprobs is False:
        return None
    return (0 if logprobs else None) if top_logprobs is None else top_logprobs

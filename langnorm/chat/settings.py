"""The options of a call: their names, their checks, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, get_args

from langnorm.chat.control_tokens import SpecialTokens
from langnorm.chat.results import Norms, Recording
from langnorm.chat.tools import resolve_schema, resolve_tool_use
from langnorm.checks import build_options
from langnorm.engines.base import Engine
from langnorm.engines.options import Sampling
from langnorm.errors import OptionError, closest
from langnorm.interventions.options import Intervention, Recursion, Steering, Suppression
from langnorm.interventions.plan import Plan, Plans
from langnorm.norms.baseline import Baseline, baseline_for, check_profile, distribution_for
from langnorm.norms.layers import select_layers
from langnorm.norms.thresholds import threshold_rule, thresholds_of
from langnorm.selection.options import Selection
from langnorm.selection.score_pruner import ScorePruner
from langnorm.text.steps import get_splitter

_SAMPLING_NAMES = tuple(field.name for field in fields(Sampling))
_NORM_NAMES = ("norms", "layers", "norm_profile", "threshold", "low_below", "step_splitter")
_INTERVENTIONS: dict[str, type[Intervention]] = {kind.name: kind for kind in (Recursion, Steering, Suppression)}
CALL_NAMES = (
    *("model", *_SAMPLING_NAMES, "enable_thinking", "special_tokens", "logprobs", "top_logprobs"),
    *(*_NORM_NAMES, *_INTERVENTIONS, "selection"),
    *("timeout", "max_retries", "max_batch_size"),
)
"""What a call may set, as it may be set in the constructor."""

_TOOL_NAMES = ("tools", "tool_choice", "parallel_tool_calls", "response_format")  # of calls alone
_ACCEPTED_NAMES = ("stream", "strict", "profile")  # LangChain's own need nothing done; `profile` is told apart
_NORMS = ("off", "steps", "tokens")
_MOST_TOP_LOGPROBS = 20  # as with OpenAI
_SPECIAL_TOKENS = get_args(SpecialTokens)


def call_settings(given: Mapping[str, Any], default: Callable[[str], Any]) -> dict[str, Any]:
    """Return all options of a call, checked as far as that needs no model.

    Args:
        given: What the call sets.
        default: Returns the value of an option that it does not set.

    Raises:
        OptionError: An option is unknown, or its value is not allowed.
    """
    check_known(given, [*CALL_NAMES, *_TOOL_NAMES, *_ACCEPTED_NAMES], "This call")
    given = told_apart(given)
    settings = {name: given[name] if name in given else default(name) for name in CALL_NAMES}
    settings["tool_use"] = resolve_tool_use(
        given.get("tools"), given.get("tool_choice"), is_parallel=given.get("parallel_tool_calls")
    )
    settings["schema"] = resolve_schema(given.get("response_format"))
    if settings["norms"] not in _NORMS:
        hint = closest(str(settings["norms"]), _NORMS)
        msg = f'`norms={settings["norms"]!r}` is not allowed. Use "off", "steps" or "tokens".{hint}'
        raise OptionError(msg)
    special_tokens = settings["special_tokens"]
    if special_tokens not in _SPECIAL_TOKENS:
        hint = closest(str(special_tokens), _SPECIAL_TOKENS)
        msg = f'`special_tokens={special_tokens!r}` is not allowed. Use "literal", "allow" or "raise".{hint}'
        raise OptionError(msg)
    top_logprobs_of(settings)
    retries = settings["max_retries"]
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        msg = f"`max_retries={retries!r}` is not allowed. Use 0 or above."
        raise OptionError(msg)
    timeout = settings["timeout"]
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        msg = f"`timeout={timeout!r}` is not allowed. Use seconds above 0, or None for no limit."
        raise OptionError(msg)
    if not isinstance(settings["max_batch_size"], int) or settings["max_batch_size"] < 1:
        msg = f"`max_batch_size={settings['max_batch_size']!r}` is not allowed. Use 1 or above."
        raise OptionError(msg)
    if not isinstance(settings["model"], str) or not settings["model"]:
        msg = f'`model={settings["model"]!r}` is not allowed. Use a folder or a name, such as `"abacus"`.'
        raise OptionError(msg)
    if isinstance(settings["layers"], str):
        select_layers(settings["layers"], 1)  # type: ignore[arg-type]  # this is the check
    check_profile(settings["norm_profile"])
    get_splitter(settings["step_splitter"])
    settings["threshold"] = threshold_rule(settings["threshold"])
    Baseline(low_below=settings["low_below"])
    for name, kind in _INTERVENTIONS.items():
        settings[name] = build_options(kind, name, settings[name])
    settings["selection"] = build_options(Selection, "selection", settings["selection"])
    _sampling(settings, {})
    if settings["selection"] and settings["n"] != 1:
        msg = (
            f"`n={settings['n']}` and `selection` do not go together: a selection returns one message. Say how many "
            "are sampled with `Selection(n=...)`, or switch it off with `selection=None`."
        )
        raise OptionError(msg)
    return settings


def sampling_of(settings: Mapping[str, Any], engine: Engine) -> Sampling:
    """Return how a call samples: what it says, and for the rest what the model's own generation configuration says.

    Raises:
        OptionError: A value is not allowed.
    """
    sampling = _sampling(settings, _defaults(engine))
    selection = settings["selection"]
    if selection is None:
        return sampling
    if selection.n > 1 and sampling.is_greedy:
        msg = (
            f"A selection needs responses that differ, and `temperature={sampling.temperature}` gives the same one "
            f"{selection.n} times. Set `temperature=0.7`, or switch it off with `selection=None`."
        )
        raise OptionError(msg)
    return replace(sampling, n=selection.n)


def _defaults(engine: Engine) -> dict[str, Any]:
    """Return what the model's own generation configuration says of sampling."""
    config = engine.generation_config
    found = {name: getattr(config, name, None) for name in ("top_p", "top_k", "min_p", "repetition_penalty")}
    found["temperature"] = (config.temperature if config.temperature is not None else 1.0) if config.do_sample else 0.0
    found["max_tokens"] = config.max_new_tokens
    found["stop"] = config.stop_strings
    return {name: value for name, value in found.items() if value is not None}


def _sampling(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Sampling:
    given = {name: settings[name] for name in _SAMPLING_NAMES if settings[name] is not None}
    return Sampling(**(dict(defaults) | given))


def recording_of(settings: Mapping[str, Any], engine: Engine) -> Recording | None:
    """Return what a call records and compares with, or None where norms are off.

    Raises:
        OptionError: A layer is outside the model, or the profile is of another one.
    """
    return None if settings["norms"] == "off" else _recording(settings["norms"], settings, engine)


def scoring_of(settings: Mapping[str, Any], engine: Engine) -> Recording | None:
    """Return what a selection's score reads of norms, or None where it reads none or there is no selection.

    Raises:
        OptionError: The score compares norms with thresholds, and nothing is known of the model's norms yet.
    """
    selection = settings["selection"]
    if selection is None or not selection.needs_norms:
        return None
    recording = _recording("tokens", settings, engine)
    baseline = recording.baseline
    if selection.needs_thresholds and baseline.estimator is None:
        thresholds = thresholds_of(baseline.rule, recording.layers, baseline.distribution)
        if thresholds is None:
            msg = (
                f"The score `{selection.to_dict()['score']}` compares norms with thresholds, and nothing is known yet "
                "of this model's norms. Calibrate a NormProfile, give a `threshold` per layer, or use a score without "
                "thresholds, such as `mean`."
            )
            raise OptionError(msg)
    return recording


def pruner_of(selection: Selection | None, scoring: Recording | None, engine: Engine) -> ScorePruner | None:
    """Return what stops samples early, or None where nothing does.

    Raises:
        OptionError: The engine cannot stop single samples.
    """
    if selection is None or selection.prune is None:
        return None
    if not engine.can_prune:
        msg = (
            f"The engine `{type(engine).__name__}` cannot stop single samples of a request. Leave `prune` out, or use "
            '`engine="transformers"`.'
        )
        raise OptionError(msg)
    layers, baseline = (scoring.layers, scoring.baseline) if scoring else ((), None)
    return ScorePruner(selection, layers, baseline, engine.tokenizer)


def _recording(norms: Norms, settings: Mapping[str, Any], engine: Engine) -> Recording:
    layers = select_layers(settings["layers"], engine.num_layers)
    baseline = baseline_for(
        engine,
        layers,
        profile=settings["norm_profile"],
        rule=settings["threshold"],
        low_below=settings["low_below"],
    )
    return Recording(norms, layers, get_splitter(settings["step_splitter"]), baseline)


def top_logprobs_of(settings: Mapping[str, Any]) -> int | None:
    """Return how many most likely tokens a call reports beside each one; None for no log-probabilities at all.

    Raises:
        OptionError: A value is not allowed.
    """
    wanted, top = settings["logprobs"], settings["top_logprobs"]
    if wanted not in (None, True, False):
        msg = f"`logprobs={wanted!r}` is not allowed. Use True or False; `top_logprobs` says how many."
        raise OptionError(msg)
    if top is None:
        return 0 if wanted else None
    if not isinstance(top, int) or isinstance(top, bool) or not 0 <= top <= _MOST_TOP_LOGPROBS:
        msg = f"`top_logprobs={top!r}` is not allowed. Use 0 to {_MOST_TOP_LOGPROBS}, or None."
        raise OptionError(msg)
    return None if wanted is False else top


def plans_of(settings: Mapping[str, Any], engine: Engine) -> Plans:
    """Return what a call does to its states, with thresholds from its profile or from what the engine has seen.

    Raises:
        OptionError: A layer is outside the model or has no threshold, or the profile is of another model.
    """
    found = {}
    for name in _INTERVENTIONS:
        if options := settings[name]:
            layers = select_layers(options.layers, engine.num_layers)
            distribution, _ = distribution_for(engine, layers, settings["norm_profile"])
            found[name] = Plan(options, layers, thresholds_of(options.rule, layers, distribution))
    return Plans(**found)


def told_apart(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with a `profile` that is about norms under its own name.

    A dict is LangChain's description of a model's abilities.
    """
    fields = dict(given)
    if "profile" in fields and not isinstance(fields["profile"], dict):
        fields["norm_profile"] = fields.pop("profile")
    return fields


def check_known(given: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    """Raise `OptionError` with the closest name for an option that there is not."""
    for name in given:
        if name not in allowed:
            hint = closest(name, allowed) or f" Use one of: {', '.join(allowed)}."
            msg = f"{where} has no option `{name}`.{hint}"
            raise OptionError(msg)

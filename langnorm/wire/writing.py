"""A request as a client writes it: the settings of a call of ChatLangNorm, all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from langchain_core.messages import BaseMessage

from langnorm.chat.settings import INTERVENTIONS, CallSettings
from langnorm.checks import brief
from langnorm.errors import OptionError
from langnorm.norms.baseline import AUTO
from langnorm.norms.layers import LayerSelection
from langnorm.norms.thresholds import threshold_rule_to_dict
from langnorm.selection.options import Selection
from langnorm.wire.conversations import write_messages
from langnorm.wire.names import FIELD, MAX_TOKENS


def write_call(settings: CallSettings, step_splitter: Any, messages: Sequence[BaseMessage]) -> dict[str, Any]:
    """Return the body of a request, but for its model.

    Args:
        settings: Of the call.
        step_splitter: As the caller gave it; the settings have it as a function.
        messages: The conversation.

    Raises:
        OptionError: A setting is an object of this process, which a server cannot have.
        PromptError: A message cannot be put to a model of text.
    """
    body = {"messages": write_messages(messages)} | dict(settings.sampling)
    if "max_tokens" in body:
        body[MAX_TOKENS[0]] = body.pop("max_tokens")
    if settings.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": settings.top_logprobs}
    if use := settings.tool_use.tools:
        body |= {"tools": list(use), "parallel_tool_calls": settings.tool_use.is_parallel}
        body["tool_choice"] = _tool_choice(settings)
    if settings.schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": settings.schema}}
    return body | {FIELD: _own_options(settings, step_splitter)}


def _tool_choice(settings: CallSettings) -> Any:
    use = settings.tool_use
    if use.name is not None:
        return {"type": "function", "function": {"name": use.name}}
    return "required" if use.must_call else "auto"


def _own_options(settings: CallSettings, step_splitter: Any) -> dict[str, Any]:
    if not isinstance(step_splitter, str):
        raise OptionError(_of_this_process("step_splitter", step_splitter, '"sentence", "line" or "paragraph"'))
    own: dict[str, Any] = {
        "enable_thinking": settings.enable_thinking,
        "special_tokens": settings.special_tokens,
        "distribution": settings.distribution,
        "lens": _layers(settings.lens),
        "norms": settings.norms,
        "layers": _layers(settings.layers),
        "threshold": threshold_rule_to_dict(settings.threshold),
        "intensity": settings.intensity,
        "low_below": settings.low_below,
        "step_splitter": step_splitter,
        "selection": settings.selection and _selection(settings.selection),
    }
    for name in INTERVENTIONS:
        options = settings.interventions.get(name)
        own[name] = options and options.to_dict()
    if settings.timeout is not None:
        own["timeout"] = settings.timeout
    if settings.answer_prefix is not None:
        own["answer_prefix"] = settings.answer_prefix.model_dump(mode="json")
    profile = settings.norm_profile
    if profile is None:
        own["norm_profile"] = None
    elif profile != AUTO:
        raise OptionError(_of_this_process("norm_profile", profile, "the server's own: put it beside the weights"))
    return own


def _layers(layers: LayerSelection | None) -> str | list[int] | None:
    return layers if isinstance(layers, str | None) else [int(layer) for layer in layers]


def _selection(selection: Selection) -> dict[str, Any]:
    options = {field.name: getattr(selection, field.name) for field in fields(selection)}
    score, answer = selection.score, selection.answer
    names = list(score) if isinstance(score, Mapping) else [score]
    if any(not isinstance(name, str | None) for name in names):
        raise OptionError(_of_this_process("score", score, "the name of a score"))
    if not isinstance(answer, str):
        raise OptionError(_of_this_process("answer", answer, '"auto", "number", "boxed" or "line"'))
    return options | {
        "score": dict(score) if isinstance(score, Mapping) else score,
        "prune": None if selection.pruning is None else asdict(selection.pruning),
    }


def _of_this_process(name: str, value: Any, mend: str) -> str:
    return f"`{name}={brief(value)}` is an object of this process, and the model runs in another. Use {mend}."

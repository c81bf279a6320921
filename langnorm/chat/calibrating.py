"""What a calibration needs of a chat model: the settings that decide its answers, and the answers with their norms."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from langchain_core.messages import BaseMessage

from langnorm.chat.preparing import resolve_sampling
from langnorm.chat.settings import CallSettings
from langnorm.engines.base import Engine
from langnorm.norms.calibration import RecordedAnswer
from langnorm.trace import NormTrace


def deciding_settings(settings: CallSettings, engine: Engine) -> dict[str, Any]:
    """Return what decides the answers to a prompt beside the model itself, in plain types.

    Seeds and the number of completions are left out: a calibration sets them.
    """
    sampling = asdict(resolve_sampling(settings, engine))
    del sampling["seed"], sampling["n"]
    return sampling | {
        "enable_thinking": settings.enable_thinking,
        "special_tokens": settings.special_tokens,
        "interventions": {name: options.to_dict() for name, options in settings.interventions.items()},
        "selection": settings.selection and settings.selection.to_dict(),
    }


def recorded_answer(message: BaseMessage) -> RecordedAnswer:
    """Return the answer in a message that was made with `norms="tokens"`."""
    trace = NormTrace.from_message(message)
    is_cut_off = message.response_metadata.get("finish_reason") == "length"
    steps = [(step.start, step.end) for step in trace.steps]
    return RecordedAnswer(trace.token_ids or (), trace.token_norms or (), trace.token_texts or (), steps, is_cut_off)

"""Why an answer ended, in the words of whichever model gave it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = ("finish_reason", "stop_reason", "done_reason", "stopReason")  # Anthropic's, Ollama's, Bedrock's
# In lower case; models have many words for the end: OpenAI's two, Anthropic's, Mistral's.
_FILTERED = ("content_filter", "content_filtered")
_CUT_OFF = ("length", "max_tokens", "max_output_tokens", "model_context_window_exceeded", "model_length", *_FILTERED)


def finish_reason(metadata: Mapping[str, Any]) -> str | None:
    """Return why an answer ended, as the `response_metadata` of its message says it, or None."""
    incomplete = metadata.get("incomplete_details")  # of OpenAI's Responses
    reasons = [metadata.get(name) for name in _NAMES]
    reasons.append(incomplete.get("reason") if isinstance(incomplete, Mapping) else None)
    return next((reason for reason in reasons if reason and isinstance(reason, str)), None)


def is_cut_off(reason: str | None) -> bool:
    """Return whether an answer that ended for this reason may lack its end: at a limit, or by a filter."""
    return reason is not None and reason.lower() in _CUT_OFF


def is_filtered(reason: str) -> bool:
    """Return whether a filter has cut an answer off that ended for this reason."""
    return reason.lower() in _FILTERED

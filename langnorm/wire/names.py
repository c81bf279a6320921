"""The names of what goes over the wire, which both sides know."""

from __future__ import annotations

from langnorm.chat.answer_prefix import RESUME
from langnorm.chat.settings import INTERVENTIONS
from langnorm.trace import KEY

FIELD = KEY
"""Where requests have langnorm's own options, and messages what it found."""

OPENAI_OPTIONS = (
    *("temperature", "top_p", "seed", "n", "stop", "logprobs", "top_logprobs"),
    *("tools", "tool_choice", "parallel_tool_calls", "response_format"),
)
"""Options of a call that have the same name, and the same meaning, in OpenAI's requests."""

MAX_TOKENS = ("max_completion_tokens", "max_tokens")
"""OpenAI's two names of the option `max_tokens`."""

MORE_SAMPLING = ("top_k", "min_p", "repetition_penalty")
"""Options that other servers take beside OpenAI's, and langnorm too; also taken inside `FIELD`."""

OWN_OPTIONS = (
    *MORE_SAMPLING,
    *("enable_thinking", "special_tokens", "distribution", "lens", "norms", "layers", "threshold"),
    *("intensity", "low_below", "step_splitter"),
    *("norm_profile", *INTERVENTIONS, "selection", "timeout", "answer_prefix"),
)
"""Options of a call that a request has inside `FIELD`."""

COUNT_OPTIONS = ("enable_thinking", "special_tokens")
"""Those of them that say how many tokens a prompt has."""

ENGINE, INVALID_CALLS, USAGE = "engine", "invalid_tool_calls", "usage"
"""What `FIELD` has beside that, of the message itself: LangChain's fields that OpenAI's format has no place for."""


def is_of_tokens(name: str) -> bool:
    """Return whether a message has this of `FIELD` in its `additional_kwargs`; the rest is in `response_metadata`."""
    return name == RESUME or name.startswith("token_")

"""A request: OpenAI's fields and langnorm's own options, as a server reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage

from langnorm.chat.answer_prefix import AnswerPrefix
from langnorm.chat.settings import check_names, check_options
from langnorm.checks import brief, check_flag, refuse
from langnorm.errors import OptionError
from langnorm.norms.baseline import AUTO
from langnorm.stored import StoredForm
from langnorm.wire.conversations import read_messages
from langnorm.wire.names import FIELD, MAX_TOKENS, MORE_SAMPLING, OPENAI_OPTIONS, OWN_OPTIONS

_WITHOUT_EFFECT = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("prompt_cache_options", "prediction"),
)
"""What says nothing of the answer, and is passed over."""

_ONLY_OFF: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "verbosity": ("medium",),
    "moderation": (),
    "modalities": (["text"],),
    "audio": (),
    "functions": ([],),
    "function_call": (),
    "web_search_options": (),
}
"""What a model here cannot do, and the values that ask for nothing."""

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_NAMES = (
    *("model", "messages", "stream", "stream_options", "reasoning_effort", "chat_template_kwargs", FIELD),
    *(*OPENAI_OPTIONS, *MAX_TOKENS, *MORE_SAMPLING, *_WITHOUT_EFFECT, *_ONLY_OFF),
)
_PREFIX = StoredForm(AnswerPrefix, "an answer that can be gone on from", "Take it as the model gave it.")


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A request for a completion.

    Attributes:
        model: The name of the model that is asked, or None.
        messages: The conversation.
        options: Of the call, as `ChatLangNorm` takes them, each checked by itself but for tools and formats.
        is_streamed: Whether the answer is to be streamed.
        with_usage: Whether a stream ends with its usage.
        with_findings: Whether the answer is to say what langnorm found.
    """

    model: str | None
    messages: list[BaseMessage]
    options: dict[str, Any]
    is_streamed: bool
    with_usage: bool
    with_findings: bool


def read_call(body: Any) -> ChatCall:
    """Return what the body of a request asks for.

    Raises:
        OptionError: A field is unknown, or its value is not allowed.
        PromptError: The messages are malformed.
    """
    if not isinstance(body, Mapping):
        msg = f"The body is `{brief(body)}`. Give a JSON object with `messages`."
        raise OptionError(msg)
    check_names(body, _NAMES, "This request")
    given = {name: value for name, value in body.items() if value is not None}
    for name, allowed in _ONLY_OFF.items():
        if name in given and given[name] not in allowed:
            refuse(name, given[name], "nothing: this model has no such option")
    if not isinstance(model := given.get("model"), str | None):
        refuse("model", model, "the name of the model, as `/v1/models` has it")
    is_streamed = given.get("stream", False)
    check_flag("stream", is_streamed)
    options = {name: given[name] for name in (*OPENAI_OPTIONS, *MORE_SAMPLING) if name in given}
    options |= _read_max_tokens(given) | _read_thinking(given) | _read_own(given.get(FIELD))
    return ChatCall(
        model=model,
        messages=read_messages(given.get("messages")),
        options=check_options(options, "This request"),
        is_streamed=is_streamed,
        with_usage=_read_with_usage(given, is_streamed=is_streamed),
        with_findings=FIELD in given,
    )


def _read_max_tokens(given: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: given[name] for name in MAX_TOKENS if name in given}
    if len(values) == 2 and len(set(map(repr, values.values()))) == 2:
        names = " and ".join(f"`{name}={brief(value)}`" for name, value in values.items())
        msg = f"{names} are two names for the same. Give one of them."
        raise OptionError(msg)
    return {"max_tokens": next(iter(values.values()))} if values else {}


def _read_thinking(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether the model may reason, as OpenAI says it and as other servers do."""
    options: dict[str, Any] = {}
    effort = given.get("reasoning_effort", "medium")
    if effort not in _EFFORTS:
        refuse("reasoning_effort", effort, f"one of {', '.join(_EFFORTS)}; all but none mean the same")
    if effort == "none":
        options["enable_thinking"] = False
    template = given.get("chat_template_kwargs", {})
    if not isinstance(template, Mapping) or set(template) - {"enable_thinking"}:
        refuse("chat_template_kwargs", template, '{"enable_thinking": true or false}')
    return options | dict(template)


def _read_with_usage(given: Mapping[str, Any], *, is_streamed: bool) -> bool:
    stream_options = given.get("stream_options", {})
    if not isinstance(stream_options, Mapping) or (stream_options and not is_streamed):
        refuse("stream_options", stream_options, 'an object such as {"include_usage": true}, together with `stream`')
    check_names(stream_options, ("include_usage", "include_obfuscation"), "`stream_options`")
    with_usage = stream_options.get("include_usage") or False
    check_flag("include_usage", with_usage, owner="stream_options")
    return with_usage


def _read_own(own: Any) -> dict[str, Any]:
    if own is None:
        return {}
    if not isinstance(own, Mapping):
        refuse(FIELD, own, 'an object of options, such as {"norms": "steps"}')
    check_names(own, OWN_OPTIONS, f"`{FIELD}`")
    options = dict(own)
    if options.get("norm_profile", AUTO) not in (AUTO, None):  # no request makes a server read its files
        refuse("norm_profile", options["norm_profile"], '"auto" or null: a profile is the server\'s own')
    if options.get("answer_prefix") is not None:
        options["answer_prefix"] = _PREFIX.check(options["answer_prefix"], "`answer_prefix`")
    return options

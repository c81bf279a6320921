"""Asks a chat model many problems at once, each with settings of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import starmap
from typing import TYPE_CHECKING, Any

from langnorm.chat.batches import batch_of_calls
from langnorm.engines.requests import Completion, Record
from langnorm.trace import NormTrace

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from langnorm.chat_models import ChatLangNorm

_BATCHES_AT_ONCE = 4  # so many that an answer that ends makes room for the next one


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt with the settings of its call."""

    messages: list[dict[str, Any]]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer.

    Attributes:
        message: All of it.
        trace: Its norms.
        is_cut: Whether `max_tokens` ended it.
    """

    message: AIMessage
    trace: NormTrace
    is_cut: bool

    @property
    def num_run(self) -> int:
        """Number of its tokens that were run: all but the last."""
        return max(0, self.trace.tokens - 1)


def ask_all(
    chat: ChatLangNorm, asked: Sequence[Asked], on_progress: Callable[[int], Any] | None = None
) -> list[Answered]:
    """Return the answers, in order.

    Args:
        chat: The chat model.
        asked: What it is asked.
        on_progress: Is called with the number of new answers now and then.
    """
    from langchain_core.runnables.config import ContextThreadPoolExecutor

    def ask(messages: list[dict[str, Any]], settings: Mapping[str, Any]) -> Answered:
        message = chat.invoke(messages, **{"norms": "tokens", **settings})
        is_cut = message.response_metadata.get("finish_reason") == "length"
        return Answered(message, NormTrace.from_message(message), is_cut)

    answers: list[Answered] = []
    size = _BATCHES_AT_ONCE * chat.max_batch_size
    for start in range(0, len(asked), size):
        part = [(one.messages, one.settings) for one in asked[start : start + size]]
        with batch_of_calls(chat, len(part)), ContextThreadPoolExecutor(chat.max_batch_size) as executor:
            futures = [*starmap(executor.submit, ((ask, *each) for each in part))]
            try:
                answers += [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()
        if on_progress:
            on_progress(len(part))
    return answers


def record_states(
    chat: ChatLangNorm, asked: Sequence[Asked], layers: Sequence[int], on_progress: Callable[[int], Any] | None = None
) -> list[Completion]:
    """Return the answers with norms and hidden states of their tokens, in order.

    Args:
        chat: The chat model.
        asked: What it is asked, one answer each.
        layers: Layers whose states are kept, ascending.
        on_progress: Is called with the number of new answers now and then.

    Raises:
        OptionError: The engine has no hidden states.
    """
    record = Record(layers=tuple(layers), states=True)
    completions: list[Completion] = []
    size = _BATCHES_AT_ONCE * chat.max_batch_size
    for start in range(0, len(asked), size):
        calls = [chat.prepare(one.messages, **one.settings) for one in asked[start : start + size]]
        requests = [replace(call.request, record=record) for call in calls]
        for request in requests:
            calls[0].engine.check(request)
        completions += [response.completions[0] for response in calls[0].engine.generate(requests)]
        if on_progress:
            on_progress(len(calls))
    return completions

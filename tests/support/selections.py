"""A question with answers that differ, and what tests look at in a selection."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage

from langnorm import ChatLangNorm

QUESTION = "Start with 12. Add 30. Multiply the result by 7. What is the result?"


def ranking(message: AIMessage) -> dict[str, Any]:
    """Return what a message says of the selection."""
    found: dict[str, Any] = message.response_metadata["langnorm"]["selection"]
    return found


def sampled(chat: ChatLangNorm, n: int, **options: Any) -> list[AIMessage]:
    """Return the messages of `n` samples, with all that scores read."""
    messages = chat._convert_input(QUESTION).to_messages()
    result = chat.generate([messages], n=n, stream=False, norms="tokens", logprobs=True, **options)
    return [generation.message for generation in result.generations[0]]  # type: ignore[union-attr,misc]

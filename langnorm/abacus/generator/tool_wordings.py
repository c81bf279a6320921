"""The wordings around calls in conversations with tools, read from `content/tool_requests.toml`."""

from __future__ import annotations

from dataclasses import dataclass

from langnorm.abacus.generator.tables import load


@dataclass(frozen=True, slots=True)
class SmallTalk:
    """A request that needs no tool, what Abacus answers, and what it thinks before it answers."""

    request: str
    answer: str
    thought: str


@dataclass(frozen=True, slots=True)
class Wordings:
    """How users ask for a tool by its name, and what stands around a request.

    Attributes:
        with_arguments: Requests with fields `tool` and `arguments`, the latter in words.
        function_like: Requests with the same fields, which write the call as in code.
        one_value: Requests with fields `tool` and `value`.
        no_arguments: Requests with a field `tool`.
        greetings: What may come before a request.
        prefaces: Sentences that may come before a request.
        endings: What may follow a request.
        asking: What may go before an imperative.
        system_messages: System messages.
        small_talk: What needs no tool.
    """

    with_arguments: tuple[str, ...]
    function_like: tuple[str, ...]
    one_value: tuple[str, ...]
    no_arguments: tuple[str, ...]
    greetings: tuple[str, ...]
    prefaces: tuple[str, ...]
    endings: tuple[str, ...]
    asking: tuple[str, ...]
    system_messages: tuple[str, ...]
    small_talk: tuple[SmallTalk, ...]


WORDINGS = load("tool_requests.toml", Wordings)

"""What every part of the generator agrees on: an example, the split it belongs to, and a step of arithmetic."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["train", "dev", "test"]
Operator = Literal["+", "-", "*", "/"]

_BUCKETS = 20  # one of twenty problems is for development, one for the test, the rest for training


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation that ends with the assistant message to be learnt.

    Attributes:
        skill: `"arithmetic"`, `"tools"` or `"chat"`.
        messages: Messages as a chat template takes them. The assistant's carry `reasoning_content`
            when they think, and `tool_calls` as `{"type": "function", "function": {"name", "arguments"}}`
            with `arguments` a dict.
        tools: Tools as LangChain's `convert_to_openai_tool` emits them.
        enable_thinking: Whether the generation prompt leaves room to think.
        answer: What an evaluation compares, when there is one such string.
        details: Facts about the example that evaluations group by (number of steps, form, ...).
    """

    skill: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    enable_thinking: bool = True
    answer: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[dict[str, Any], ...]:
        """The messages before the one to be learnt."""
        return self.messages[:-1]


@dataclass(frozen=True, slots=True)
class Step:
    """One exact step `left operator right = result`; `left` is the result of the step before."""

    left: int
    operator: Operator
    right: int
    result: int


def bucket(text: str, num_buckets: int) -> int:
    """Return the bucket of `text`, the same on every machine and in every run."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_buckets


def split_of(text: str) -> Split:
    """Return the one split that may hold an example whose problem is `text`."""
    number = bucket(text, _BUCKETS)
    return "test" if number == 0 else "dev" if number == 1 else "train"

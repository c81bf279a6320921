"""The attempts at one answer: how weak each is, which is best, and what the kept message says of them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any

from langnorm.checks import check_number
from langnorm.errors import WeakReasoningError
from langnorm.trace import KEY, NormTrace

MAX_LOW_SHARE = 0.3
"""An answer is weak when a larger share of its steps is low, unless the user says otherwise."""

ON_EXHAUSTED = ("best", "last", "raise")
"""What becomes of a call whose attempts were all weak."""

_DIGITS = 6


def low_share(trace: NormTrace) -> float | None:
    """Return the share of a message's steps that are low, 0 to 1; None while no step's intensity is known."""
    known = [step.low for step in trace.steps if step.low is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Attempt:
    """One attempt at an answer.

    Attributes:
        settings: What was changed for it.
        message: The answer; None when there is none.
        error: What it raised instead, or None.
        response: What the message came in, for callers that have to give that back.
    """

    settings: Mapping[str, Any]
    message: Any = None
    error: Exception | None = None
    response: Any = None

    @cached_property
    def trace(self) -> NormTrace | None:
        """The norms of the message, or None."""
        return next(iter(NormTrace.from_messages([self.message])), None)

    @property
    def low_share(self) -> float | None:
        """See the function of that name."""
        return None if self.trace is None else low_share(self.trace)

    @property
    def intensity(self) -> float | None:
        """Mean percentile of the norms of the message, 0 to 1, or None."""
        return None if self.trace is None else self.trace.intensity

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended; `"length"` where it was cut short."""
        metadata = getattr(self.message, "response_metadata", None) or {}
        return metadata.get("finish_reason")

    @property
    def has_calls(self) -> bool:
        """Whether the answer calls tools."""
        return bool(getattr(self.message, "tool_calls", None))

    def record(self, *, is_kept: bool) -> dict[str, Any]:
        """Return what messages say of the attempt, in plain JSON types."""
        usage = getattr(self.message, "usage_metadata", None) or {}
        share = self.low_share
        record = {
            "low_share": None if share is None else round(share, _DIGITS),
            "intensity": self.intensity,
            "finish_reason": self.finish_reason,
            "tokens": usage.get("output_tokens"),
            "settings": plain(self.settings),
            "kept": is_kept,
        }
        return record if self.error is None else record | {"error": f"{type(self.error).__name__}: {self.error}"}


class Attempts:
    """All attempts at one answer, in order.

    Args:
        max_low_share: Largest share of low steps of an answer that is not weak.
        retry_tool_calls: Whether weak answers that call tools are to be retried as well.
    """

    def __init__(self, max_low_share: float, *, retry_tool_calls: bool) -> None:
        self._max_low_share = max_low_share
        self._retry_tool_calls = retry_tool_calls
        self._all: list[Attempt] = []

    def __len__(self) -> int:
        return len(self._all)

    def add(self, settings: Mapping[str, Any], message: Any, response: Any = None) -> None:
        """Append an attempt that gave an answer."""
        self._all.append(Attempt(settings, message, response=response))

    def fail(self, settings: Mapping[str, Any], error: Exception) -> None:
        """Append an attempt that raised."""
        self._all.append(Attempt(settings, error=error))

    @property
    def best(self) -> Attempt:
        """The best attempt.

        Finished ones come before those that were cut short, then those that need no retry, then those with the
        smallest share of low steps, then those of the highest intensity, then the earliest.
        """
        return min((attempt for attempt in self._all if attempt.error is None), key=self._rank)

    def _rank(self, attempt: Attempt) -> tuple[Any, ...]:
        share, intensity = attempt.low_share or 0.0, attempt.intensity or 0.0
        return attempt.finish_reason == "length", not self._is_enough(attempt), share, -intensity

    @property
    def are_enough(self) -> bool:
        """Whether the best attempt is not weak, or weak and not to be retried."""
        return self._is_enough(self.best)

    def _is_enough(self, attempt: Attempt) -> bool:
        return not self._is_weak(attempt) or (attempt.has_calls and not self._retry_tool_calls)

    def _is_weak(self, attempt: Attempt) -> bool | None:
        share = attempt.low_share
        return None if share is None else share > self._max_low_share

    def chosen(self, on_exhausted: str) -> Attempt:
        """Return the attempt to keep when there is no other.

        Raises:
            WeakReasoningError: All are weak and `on_exhausted` is `"raise"`.
        """
        best = self.best
        if on_exhausted == "best" or self._is_enough(best):
            return best
        if on_exhausted == "last":
            return [attempt for attempt in self._all if attempt.error is None][-1]
        msg = (
            f"The best of {len(self)} attempt{'s' * (len(self) > 1)} has {best.low_share:.0%} low steps, and "
            f"`max_low_share={self._max_low_share}` allows {self._max_low_share:.0%}. Allow more low steps or more "
            'attempts, change `escalation`, or keep weak answers with `on_exhausted="best"`.'
        )
        raise WeakReasoningError(msg, self.recorded(best))

    def recorded(self, kept: Attempt) -> Any:
        """Return the message of an attempt that says what became of all of them.

        It is a copy: messages from a cache are shared. An only message without norms is returned as it is.
        """
        if len(self) == 1 and kept.trace is None:
            return kept.message
        attempts = [attempt.record(is_kept=attempt is kept) for attempt in self._all]
        return with_facts(kept.message, weak=self._is_weak(kept), attempts=attempts)


def with_facts(message: Any, **facts: Any) -> Any:
    """Return a copy of a message with more facts in `response_metadata["langnorm"]`."""
    metadata = message.response_metadata
    return message.model_copy(update={"response_metadata": metadata | {KEY: (metadata.get(KEY) or {}) | facts}})


def plain(value: Any) -> Any:
    """Return a setting in plain JSON types: options as dicts of their fields, models and other objects by name."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    names = (getattr(value, name, None) for name in ("model", "model_name", "name", "__name__"))
    return next((name for name in names if isinstance(name, str)), type(value).__name__)


def check_share(value: Any) -> None:
    """Raise `OptionError` unless `max_low_share` is a number from 0 to 1."""
    check_number("max_low_share", value, low=0, high=1, allowed="a number from 0 to 1; 1 finds no answer weak")

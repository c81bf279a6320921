"""The attempts at one answer: how weak each is, which is best, and what the kept message says of them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langnorm.chat.answer_prefix import AnswerPrefix, prefix_of, without_resume
from langnorm.errors import WeakReasoningError
from langnorm.selection.endings import finish_reason, is_cut_off
from langnorm.trace import KEY, NormTrace

if TYPE_CHECKING:
    from langnorm.retry.policy import RetryPolicy

_DIGITS = 6


def low_share(trace: NormTrace) -> float | None:
    """Return the share of a message's steps that are low, 0 to 1; None while no step's intensity is known."""
    are_low = [step.low for step in trace.steps if step.low is not None]
    return sum(are_low) / len(are_low) if are_low else None


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
        return next(iter(NormTrace.from_messages([self.message])), None) if self.message is not None else None

    @property
    def low_share(self) -> float | None:
        """Share of the steps of the message that are low, 0 to 1, or None; see the function of this name."""
        return None if self.trace is None else low_share(self.trace)

    @property
    def intensity(self) -> float | None:
        """Mean percentile of the norms of the message, 0 to 1, or None."""
        return None if self.trace is None else self.trace.intensity

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, in the words of its model, such as `"length"` where it was cut short; or None."""
        return finish_reason(getattr(self.message, "response_metadata", None) or {})

    @property
    def good_beginning(self) -> AnswerPrefix | None:
        """The tokens before the first low step; None where none is low or the first is, or it does not carry them."""
        steps = self.trace.steps if self.trace else ()
        first_low = next((number for number, step in enumerate(steps) if step.low), 0)
        return prefix_of(self.message, steps[first_low].start) if first_low else None

    @property
    def has_calls(self) -> bool:
        """Whether the answer calls tools."""
        return bool(getattr(self.message, "tool_calls", None))

    def to_dict(self, *, is_kept: bool) -> dict[str, Any]:
        """Return what messages say of the attempt, in plain JSON types.

        Args:
            is_kept: Whether its answer is the one that is returned.
        """
        usage = getattr(self.message, "usage_metadata", None) or {}
        share = self.low_share
        record = {
            "low_share": None if share is None else round(share, _DIGITS),
            "intensity": self.intensity,
            "finish_reason": self.finish_reason,
            "tokens": usage.get("output_tokens"),
            "settings": to_plain(self.settings),
            "kept": is_kept,
        }
        return record if self.error is None else record | {"error": f"{type(self.error).__name__}: {self.error}"}


class Attempts:
    """All attempts at one answer, in order.

    Args:
        policy: Says which are weak, which are retried, and which is kept when all are weak.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
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
        return is_cut_off(attempt.finish_reason), self._is_to_be_retried(attempt), share, -intensity

    @property
    def need_retry(self) -> bool:
        """Whether even the best attempt is weak, and of a kind that the policy retries."""
        return self._is_to_be_retried(self.best)

    def _is_to_be_retried(self, attempt: Attempt) -> bool:
        return bool(self._is_weak(attempt)) and (self._policy.retry_tool_calls or not attempt.has_calls)

    def _is_weak(self, attempt: Attempt) -> bool | None:
        share = attempt.low_share
        return None if share is None else share > self._policy.max_low_share

    def choose(self) -> Attempt:
        """Return the attempt to keep when no other follows.

        Raises:
            WeakReasoningError: All are weak and `on_exhausted` is `"raise"`.
        """
        best = self.best
        if self._policy.on_exhausted == "best" or not self._is_to_be_retried(best):
            return best
        if self._policy.on_exhausted == "last":
            return [attempt for attempt in self._all if attempt.error is None][-1]
        allowed_share = self._policy.max_low_share
        msg = (
            f"The best of {len(self)} attempt{'s' * (len(self) > 1)} has {best.low_share:.0%} low steps, and "
            f"`max_low_share={allowed_share}` allows {allowed_share:.0%}. Allow more low steps or more "
            'attempts, change `escalation`, or keep weak answers with `on_exhausted="best"`.'
        )
        raise WeakReasoningError(msg, self.build_message(best))

    def build_message(self, chosen: Attempt) -> Any:
        """Return the message of the chosen attempt, with `weak` and the record of all `attempts` in its metadata.

        It is a copy: messages from a cache are shared. An only message without norms is returned as it is.
        """
        message = chosen.message
        extra = without_resume(getattr(message, "additional_kwargs", {}))
        if extra != getattr(message, "additional_kwargs", {}):
            message = message.model_copy(update={"additional_kwargs": extra})
        if len(self) == 1 and chosen.trace is None:
            return message
        attempts = [attempt.to_dict(is_kept=attempt is chosen) for attempt in self._all]
        return with_metadata(message, weak=self._is_weak(chosen), attempts=attempts)


def with_metadata(message: Any, **entries: Any) -> Any:
    """Return a copy of a message with more entries in `response_metadata["langnorm"]`."""
    metadata = message.response_metadata
    return message.model_copy(update={"response_metadata": metadata | {KEY: (metadata.get(KEY) or {}) | entries}})


def to_plain(value: Any) -> Any:
    """Return a setting in plain JSON types: options as dicts of their fields, models and other objects by name."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [to_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    names = (getattr(value, name, None) for name in ("model", "model_name", "name", "__name__"))
    return next((name for name in names if isinstance(name, str)), type(value).__name__)

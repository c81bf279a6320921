"""Lets rows that come just after a batch has begun join it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from transformers import StoppingCriteria

from langnorm.engines.transformers.batching import BatchRestart

if TYPE_CHECKING:
    from torch import Tensor

_SHARE = 8  # one part in so many of the time of an answer may be lost
_MOST_TOKENS = 256  # few answers are as long as they may be
_SECONDS = 0.1  # that are never too long


class RestartForLateArrivals(StoppingCriteria):
    """Raises `BatchRestart` when others have come and little is lost, their prompts included; it ends no row.

    Args:
        should_restart: Returns whether others have come that may join.
        num_tokens: Most tokens that the batch generates.
    """

    def __init__(self, should_restart: Callable[[], bool], num_tokens: int) -> None:
        self._is_joined = should_restart
        self._most_steps = min(num_tokens, _MOST_TOKENS) / _SHARE
        self._start = self._last_step = time.monotonic()
        self._num_steps = 0
        self._none: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: object) -> Tensor:  # noqa: ARG002
        """Return that no row is done, as booleans (B,)."""
        self._num_steps += 1
        if self._num_steps <= self._most_steps + 1:
            now = time.monotonic()
            # The first step is that of the prompts: it says nothing of the others.
            step, self._last_step = now - self._last_step if self._num_steps > 1 else 0.0, now
            if now - self._start <= max(_SECONDS, step * self._most_steps) and self._is_joined():
                raise BatchRestart
        if self._none is None:
            self._none = torch.zeros(input_ids.size(0), dtype=torch.bool, device=input_ids.device)
        return self._none

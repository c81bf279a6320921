"""Restarts a batch that has hardly begun when others have come, so that all of them share its forward passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from transformers import StoppingCriteria

from langnorm.engines.transformers.batching import BatchRestart

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_LOSS = 1 / 8  # of the time that an answer takes
_LONGEST_ANSWER = 256  # tokens; few answers are as long as they may be
_HARMLESS_SECONDS = 0.1  # may always be lost


class RestartForLateArrivals(StoppingCriteria):
    """Raises `BatchRestart` when others have come and little work is lost; it stops no sequence by itself.

    What is lost is the time since the batch began, that of its prompts included. It may be an eighth of what an answer
    of this batch takes, or a tenth of a second.

    Args:
        should_restart: Returns whether others have come that may join the batch.
        num_tokens: Most tokens that a sequence of the batch generates.
    """

    def __init__(self, should_restart: Callable[[], bool], num_tokens: int) -> None:
        self._should_restart = should_restart
        self._most_steps = min(num_tokens, _LONGEST_ANSWER) * _LARGEST_LOSS
        self._start = self._last_step = time.monotonic()
        self._num_steps = 0
        self._nothing_done: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: object) -> Tensor:  # noqa: ARG002
        """Return that no sequence is done, as booleans (B,)."""
        self._num_steps += 1
        if self._num_steps <= self._most_steps + 1:
            now = time.monotonic()
            # The first step runs the prompts: its time says nothing of the others.
            step_seconds = now - self._last_step if self._num_steps > 1 else 0.0
            self._last_step = now
            if now - self._start <= max(_HARMLESS_SECONDS, step_seconds * self._most_steps) and self._should_restart():
                raise BatchRestart
        if self._nothing_done is None:
            self._nothing_done = torch.zeros(input_ids.size(0), dtype=torch.bool, device=input_ids.device)
        return self._nothing_done

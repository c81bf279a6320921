"""Keeps the log-probability of each generated token, for the sequences that ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessor

from langnorm.engines.requests import TokenLogprob

if TYPE_CHECKING:
    from torch import Tensor


LOWEST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not have; OpenAI uses the same."""


class LogprobRecorder(LogitsProcessor):
    """Records log-probabilities of the model's own scores, before any processor changes them.

    Args:
        top_counts: How many most likely tokens to keep besides the chosen one, per sequence; None records nothing.
    """

    def __init__(self, top_counts: Sequence[int | None]) -> None:
        self._recorded = [index for index, count in enumerate(top_counts) if count is not None]  # R of the B sequences
        self._top_counts = top_counts
        self._largest_count = max((count for count in top_counts if count is not None), default=0)  # K
        self._step: Tensor | None = None  # log-probabilities of the step under way (R, V)
        self._chosen: list[Tensor] = []  # (R,) a step
        self._top: list[tuple[Tensor, Tensor]] = []  # log-probabilities and ids, each (R, K) a step

    @property
    def is_needed(self) -> bool:
        """Whether any sequence asks for log-probabilities."""
        return bool(self._recorded)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Return the scores (B, V) as they are."""
        self._step = scores[self._recorded].float().log_softmax(dim=-1)
        return scores

    def add_chosen(self, tokens: Tensor) -> None:
        """Record the tokens that were chosen in the step under way (B,)."""
        if self._step is None:
            return
        self._chosen.append(self._step.gather(1, tokens[self._recorded, None].to(self._step.device))[:, 0])
        if self._largest_count:
            values, ids = self._step.topk(min(self._largest_count, self._step.size(-1)), dim=-1)
            self._top.append((values, ids))

    def get(self, index: int, num_tokens: int) -> list[TokenLogprob]:
        """Return the log-probabilities of the first tokens of a sequence; none if it did not ask for them.

        Args:
            index: Of the sequence in the batch.
            num_tokens: How many of its tokens.
        """
        if index not in self._recorded or not num_tokens:
            return []
        column, num_top = self._recorded.index(index), self._top_counts[index] or 0
        chosen = torch.stack([step[column] for step in self._chosen[:num_tokens]]).clamp(min=LOWEST_LOGPROB).tolist()
        if not num_top:
            return [TokenLogprob(value) for value in chosen]
        values = (
            torch.stack([step[column, :num_top] for step, _ in self._top[:num_tokens]])
            .clamp(min=LOWEST_LOGPROB)
            .tolist()
        )
        ids = torch.stack([step[column, :num_top] for _, step in self._top[:num_tokens]]).tolist()
        return [
            TokenLogprob(value, tuple(zip(token_ids, token_values, strict=True)))
            for value, token_ids, token_values in zip(chosen, ids, values, strict=True)
        ]

"""Keeps how likely each generated token was, for the rows that ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessor

from langnorm.engines.requests import TokenLogprob

if TYPE_CHECKING:
    from torch import Tensor


LEAST = -9999.0
"""Stands for minus infinity, which JSON does not have; OpenAI uses the same."""


class LogprobRecorder(LogitsProcessor):
    """Reads the model's own scores, before anything is done to them.

    Args:
        tops: How many most likely tokens to keep per row; None keeps nothing of it.
    """

    def __init__(self, tops: Sequence[int | None]) -> None:
        self._rows = [row for row, top in enumerate(tops) if top is not None]
        self._tops = tops
        self._most = max((top for top in tops if top is not None), default=0)
        self._step: Tensor | None = None  # log-probabilities of the step under way (R, V)
        self._chosen: list[Tensor] = []  # (R,) a step
        self._likeliest: list[tuple[Tensor, Tensor]] = []  # log-probabilities and ids, each (R, K) a step

    @property
    def is_needed(self) -> bool:
        """Whether any row asks for them."""
        return bool(self._rows)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Return the scores (B, V) as they are."""
        self._step = scores[self._rows].float().log_softmax(dim=-1)
        return scores

    def choose(self, tokens: Tensor) -> None:
        """Take note of the tokens that were chosen (B,)."""
        if self._step is None:
            return
        self._chosen.append(self._step.gather(1, tokens[self._rows, None].to(self._step.device))[:, 0])
        if self._most:
            values, ids = self._step.topk(min(self._most, self._step.size(-1)), dim=-1)
            self._likeliest.append((values, ids))

    def of(self, row: int, num_tokens: int) -> list[TokenLogprob]:
        """Return those of a row's first tokens."""
        if row not in self._rows or not num_tokens:
            return []
        place, top = self._rows.index(row), self._tops[row] or 0
        chosen = torch.stack([step[place] for step in self._chosen[:num_tokens]]).clamp(min=LEAST).tolist()
        if not top:
            return [TokenLogprob(value) for value in chosen]
        values = torch.stack([step[place, :top] for step, _ in self._likeliest[:num_tokens]]).clamp(min=LEAST).tolist()
        ids = torch.stack([step[place, :top] for _, step in self._likeliest[:num_tokens]]).tolist()
        return [
            TokenLogprob(value, tuple(zip(of_ids, of_values, strict=True)))
            for value, of_ids, of_values in zip(chosen, ids, values, strict=True)
        ]

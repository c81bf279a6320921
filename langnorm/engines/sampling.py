"""Chooses tokens for the rows of a batch, each by its own settings and its own random numbers."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from langnorm.options import Sampling

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 256  # random numbers drawn ahead per row


class RowSampler(LogitsProcessor):
    """Leaves each row with one possible token, so that the greedy choice of `generate` takes it.

    A sampled row's token i is the inverse of its cumulative distribution at the i-th random number of the row. It
    depends on the row's request and seed and on nothing else in the batch. Greedy rows keep their scores.

    Args:
        samplings: The settings, one per row.
        seeds: A (seed, sample) pair per row.
        prompt_lengths: Number of prompt tokens per row; padding stands before them.
    """

    def __init__(
        self, samplings: Sequence[Sampling], seeds: Sequence[tuple[int, int]], prompt_lengths: Sequence[int]
    ) -> None:
        self._penalized = [
            (row, RepetitionPenaltyLogitsProcessor(s.repetition_penalty), prompt_lengths[row])
            for row, s in enumerate(samplings)
            if s.repetition_penalty != 1.0
        ]
        groups: dict[tuple[float, ...], list[int]] = defaultdict(list)
        for row, s in enumerate(samplings):
            if s.temperature > 0:
                groups[s.temperature, s.top_k, s.top_p, s.min_p].append(row)
        self._num_rows = len(samplings)
        self._groups = [(rows, _warpers(*settings)) for settings, rows in groups.items()]
        self._sampled = [row for rows, _ in self._groups for row in rows]
        self._generators = [torch.Generator().manual_seed(_mix(*seeds[row])) for row in self._sampled]
        self._uniforms: Tensor | None = None  # (num sampled rows, _CHUNK)
        self._padded_prompt = max(prompt_lengths, default=0)
        self._step = 0

    @property
    def is_needed(self) -> bool:
        """Whether any row is not plainly greedy."""
        return bool(self._penalized or self._groups)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (B, V) in which a sampled row's token has 0 and every other token minus infinity."""
        if self._penalized:
            scores = scores.clone()
        for row, penalize, prompt_length in self._penalized:
            ids = input_ids[row : row + 1, self._padded_prompt - prompt_length :]
            scores[row] = penalize(ids, scores[row : row + 1])[0]
        if not self._groups:
            return scores
        tokens = []
        for rows, warpers in self._groups:
            chosen = scores if len(rows) == self._num_rows else scores[rows]
            # None of the warpers looks at earlier tokens.
            tokens.append(warpers(input_ids[:, :0], chosen))  # type: ignore[arg-type]
        probabilities = torch.softmax(torch.cat(tokens), dim=-1)  # (rows sampled, V)
        token_ids = inverse_cdf(probabilities, self._next_uniforms().to(scores.device))
        one_hot = torch.full_like(probabilities, -torch.inf).scatter_(1, token_ids, 0.0)
        if len(self._sampled) == self._num_rows and len(self._groups) == 1:
            return one_hot
        scores = scores.clone()
        scores[self._sampled] = one_hot
        return scores

    def _next_uniforms(self) -> Tensor:
        column = self._step % _CHUNK
        if column == 0:
            self._uniforms = torch.stack([torch.rand(_CHUNK, generator=g) for g in self._generators])
        self._step += 1
        assert self._uniforms is not None
        return self._uniforms[:, column : column + 1]


def inverse_cdf(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Return the token of each row at which its cumulative probability passes its random number.

    Args:
        probabilities: (B, V) in float32, rows need not sum to exactly 1.
        uniforms: (B, 1) in [0, 1).

    Returns:
        Token ids (B, 1), never one of probability zero.
    """
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Rounding may carry the product up to the total, which no token passes.
    threshold = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, threshold, right=True)


def _warpers(temperature: float, top_k: float, top_p: float, min_p: float) -> LogitsProcessorList:
    """Return transformers' own warpers, in the order in which its `generate` applies them."""
    warpers = LogitsProcessorList()
    if temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(float(temperature)))
    if top_k:
        warpers.append(TopKLogitsWarper(int(top_k)))
    if top_p < 1.0:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p > 0.0:
        warpers.append(MinPLogitsWarper(min_p))
    return warpers


def _mix(seed: int, sample: int) -> int:
    """Return a seed in which neighbouring seeds and samples have nothing in common."""
    digest = hashlib.blake2b(f"{seed}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")

"""Samples the tokens of a batch, each sequence by its own settings and its own random numbers."""

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

from langnorm.engines.options import Sampling

if TYPE_CHECKING:
    from torch import Tensor

# Random numbers per sequence: some steps of a small vocabulary, little memory in a large batch. The number of sequences
# must not decide: on a GPU, numbers drawn in portions of another size are other numbers.
_NUM_DRAWN_AT_ONCE = 2**12


class TokenSampler(LogitsProcessor):
    """Perturbs the scores of sequences so that the greedy choice of `generate` is a draw from their distribution.

    The largest of log-probabilities plus Gumbel noise is such a draw (the Gumbel-max trick). The noise of a sequence
    comes from a generator of its own, so its tokens depend on its request and seed and on nothing else in the batch;
    and a token changes only where the distribution does, so that the rounding of another batch size hardly matters.
    Greedy sequences keep their scores.

    Args:
        samplings: The settings, one per sequence.
        seeds: A (seed, sample) pair per sequence.
        prompt_lengths: Number of prompt tokens per sequence; padding stands before them.
    """

    def __init__(
        self, samplings: Sequence[Sampling], seeds: Sequence[tuple[int, int]], prompt_lengths: Sequence[int]
    ) -> None:
        self._penalized = [
            (index, RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty), prompt_lengths[index])
            for index, sampling in enumerate(samplings)
            if sampling.repetition_penalty != 1.0
        ]
        groups: dict[tuple[float, ...], list[int]] = defaultdict(list)  # indices of sequences by settings
        for index, sampling in enumerate(samplings):
            if not sampling.is_greedy:
                settings = (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
                groups[settings].append(index)
        self._num_sequences = len(samplings)
        self._groups = [(indices, build_warpers(*settings)) for settings, indices in groups.items()]
        self._sampled = [index for indices, _ in self._groups for index in indices]
        self._seeds = [hash_seed(*seeds[index]) for index in self._sampled]
        self._noise = GumbelNoise()
        self._longest_prompt = max(prompt_lengths, default=0)

    @property
    def is_needed(self) -> bool:
        """Whether any sequence is not plainly greedy."""
        return bool(self._penalized or self._groups)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (B, V), those of sampled sequences warped and with noise."""
        if self._penalized:
            scores = scores.clone()
        for index, penalize, prompt_length in self._penalized:
            ids = input_ids[index : index + 1, self._longest_prompt - prompt_length :]
            scores[index] = penalize(ids, scores[index : index + 1])[0]
        if not self._groups:
            return scores
        noise = self._noise.next(self._seeds, scores)
        if len(self._groups) == 1 and len(self._sampled) == self._num_sequences:
            return self._groups[0][1](input_ids[:, :0], scores) + noise  # type: ignore[arg-type]
        # None of the warpers looks at earlier tokens.
        warped = [warpers(input_ids[:, :0], scores[indices]) for indices, warpers in self._groups]  # type: ignore[arg-type]
        scores = scores.clone()
        scores[self._sampled] = torch.cat(warped) + noise
        return scores


class GumbelNoise:
    """Gumbel noise for sequences, each from its own generator, drawn some steps ahead where the vocabulary is small."""

    def __init__(self) -> None:
        self._generators: list[torch.Generator] = []
        self._ahead: list[Tensor] = []  # noise of the next steps, last step first

    def next(self, seeds: Sequence[int], scores: Tensor) -> Tensor:
        """Return the noise of one step, (len(seeds), V), on the device of `scores` (B, V)."""
        if not self._generators:
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in seeds]
        if not self._ahead:
            num_steps = max(1, _NUM_DRAWN_AT_ONCE // scores.size(-1))
            exponential = scores.new_empty(len(seeds), num_steps, scores.size(-1))
            for numbers, generator in zip(exponential, self._generators, strict=True):
                numbers.exponential_(generator=generator)
            # A zero would be infinite noise, and win over every token.
            gumbel = exponential.clamp_(min=torch.finfo(scores.dtype).tiny).log_().neg_()
            self._ahead = list(gumbel.unbind(dim=1))[::-1]
        return self._ahead.pop()


def build_warpers(temperature: float, top_k: float, top_p: float, min_p: float) -> LogitsProcessorList:
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


def hash_seed(seed: int, sample: int) -> int:
    """Return a seed of 64 bits that is unrelated to that of a neighbouring seed or sample."""
    digest = hashlib.blake2b(f"{seed}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")

"""Chooses tokens by langnorm's own rules, so that a seed gives on vLLM what it gives on other engines.

What is added to the logits makes their maximum the token to choose: vLLM is then asked for that. A step is asked about
more than once where a prompt is run in chunks, or again after preemption; the answer is the same each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from langnorm.engines.token_choice.distribution import NUM_LARGEST, largest, reduce_distribution
from langnorm.engines.token_choice.grammar_mask import GrammarMask
from langnorm.engines.token_choice.logprobs import LOWEST_LOGPROB
from langnorm.engines.token_choice.token_sampler import GumbelNoise, build_warpers, hash_seed

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.vllm.order import Order

CHOOSERS: dict[str, Chooser] = {}
"""Those of all sequences that need one, by key, for whoever ends them."""

_NO_IDS = torch.empty(1, 0, dtype=torch.long)


class Chooser:
    """Chooses the tokens of one sequence.

    Args:
        order: What is asked of the sequence.
        load_tokenizer: Returns the tokenizer, which a grammar needs.
    """

    def __init__(self, order: Order, load_tokenizer: Callable[[], PreTrainedTokenizerBase]) -> None:
        sampling = order.sampling
        self._penalize = None
        self._warpers: LogitsProcessorList | None = None
        self._noise: GumbelNoise | None = None
        if sampling.repetition_penalty != 1.0:
            self._penalize = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
        if not sampling.is_greedy:
            self._warpers = build_warpers(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
            self._noise = GumbelNoise()
        self._seed = hash_seed(order.seed, order.sample)
        self._grammar = (
            GrammarMask([order.grammar], [order.max_tokens], load_tokenizer(), order.end_ids) if order.grammar else None
        )
        self._has_distribution = order.records_distribution
        self._token_ids = list(order.penalized_ids)
        self._step = -1  # the one that was last asked about
        self._mask: Tensor | None = None  # (1, V), to be added
        self._noise_now: Tensor | None = None  # (1, V)
        self._reductions: list[Tensor] = []  # (6,) a step

    def choose(self, logits: Tensor, step: int, last_token: Callable[[], int]) -> Tensor:
        """Return scores (1, V) whose maximum is the next token.

        Args:
            logits: The model's (1, V), float32.
            step: Number of tokens of the answer so far.
            last_token: Returns the last of them.
        """
        while self._step < step:
            self._step += 1
            if self._step and (self._grammar or self._penalize):
                self._token_ids.append(last_token())
            if self._grammar:
                ids = torch.tensor([self._token_ids])
                self._mask = self._grammar(ids, torch.zeros_like(logits))
            if self._noise:
                self._noise_now = self._noise.next([self._seed], logits)
        if self._has_distribution:
            self._reduce(logits, step)
        if self._mask is not None:
            logits = logits + self._mask
        if self._penalize:
            logits = self._penalize(torch.tensor([self._token_ids], device=logits.device), logits)
        if self._warpers is not None and self._noise_now is not None:
            logits = self._warpers(_NO_IDS, logits) + self._noise_now  # type: ignore[arg-type]
        return logits

    def _reduce(self, logits: Tensor, step: int) -> None:
        logprobs = logits.float().log_softmax(dim=-1).clamp_(min=LOWEST_LOGPROB)
        values, _ = largest(logprobs, NUM_LARGEST)
        # Which token is chosen, and how likely it is, is known to whoever asked.
        del self._reductions[step:]
        self._reductions.append(reduce_distribution(logprobs, logprobs[:, 0], values)[0])

    def distribution(self, num_tokens: int) -> bytes:
        """Return the numbers (T, 6) of a `Distribution` for the first tokens, float32; the last column is left open."""
        rows = self._reductions[:num_tokens]
        return torch.stack(rows).cpu().numpy().tobytes() if rows else b""


def needs_chooser(order: Order) -> bool:
    """Return whether the tokens of a sequence are anything but vLLM's own choice of the likeliest."""
    sampling = order.sampling
    is_plain = sampling.is_greedy and sampling.repetition_penalty == 1.0
    return not is_plain or order.grammar is not None or order.records_distribution

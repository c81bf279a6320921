"""Keeps what the model's own distributions say of each generated token, for the sequences that ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessor

from langnorm.engines.requests import TokenLogprob
from langnorm.engines.token_choice.distribution import NUM_LARGEST, largest, reduce_distribution
from langnorm.reductions import Distribution

if TYPE_CHECKING:
    from torch import Tensor


LOWEST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not have; OpenAI uses the same."""


class LogprobRecorder(LogitsProcessor):
    """Records log-probabilities of the model's own scores, and reduces them, before any processor changes them.

    What is kept stays on the device of the scores until it is asked for.

    Args:
        top_counts: How many most likely tokens to keep besides the chosen one, per sequence; None keeps no
            log-probability.
        is_reduced: Whether the distributions are reduced, per sequence.
    """

    def __init__(self, top_counts: Sequence[int | None], is_reduced: Sequence[bool]) -> None:
        self._recorded = [  # R of the B sequences
            index
            for index, (count, reduces) in enumerate(zip(top_counts, is_reduced, strict=True))
            if count is not None or reduces
        ]
        self._reduced = [row for row, index in enumerate(self._recorded) if is_reduced[index]]  # D of the R
        self._top_counts = top_counts
        self._largest_count = max((count for count in top_counts if count is not None), default=0)  # K
        self._step: Tensor | None = None  # log-probabilities of the step under way (R, V)
        self._chosen: list[Tensor] = []  # (R,) a step
        self._top: list[tuple[Tensor, Tensor]] = []  # log-probabilities and ids, each (R, K) a step
        self._reductions: list[Tensor] = []  # (D, 6) a step

    @property
    def is_needed(self) -> bool:
        """Whether any sequence asks for something."""
        return bool(self._recorded)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Return the scores (B, V) as they are."""
        of_recorded = scores if len(self._recorded) == len(scores) else scores[self._recorded]
        self._step = of_recorded.float().log_softmax(dim=-1).clamp_(min=LOWEST_LOGPROB)
        return scores

    def add_chosen(self, tokens: Tensor) -> None:
        """Record the tokens that were chosen in the step under way (B,)."""
        if self._step is None:
            return
        step, self._step = self._step, None
        chosen = step.gather(1, tokens[self._recorded, None].to(step.device))[:, 0]
        self._chosen.append(chosen)
        num_largest = max(self._largest_count, NUM_LARGEST if self._reduced else 0)
        if not num_largest:
            return
        values, ids = largest(step, num_largest)
        if self._largest_count:
            self._top.append((values[:, : self._largest_count], ids[:, : self._largest_count]))
        if self._reduced:
            rows = slice(None) if len(self._reduced) == len(step) else self._reduced
            self._reductions.append(reduce_distribution(step[rows], chosen[rows], values[rows]))

    def get(self, index: int, num_tokens: int) -> list[TokenLogprob]:
        """Return the log-probabilities of the first tokens of a sequence; none if it did not ask for them.

        Args:
            index: Of the sequence in the batch.
            num_tokens: How many of its tokens.
        """
        num_top = self._top_counts[index]
        if num_top is None or not num_tokens:
            return []
        column = self._recorded.index(index)
        chosen = torch.stack([step[column] for step in self._chosen[:num_tokens]]).tolist()
        if not num_top:
            return [TokenLogprob(value) for value in chosen]
        values = torch.stack([step[column, :num_top] for step, _ in self._top[:num_tokens]]).tolist()
        ids = torch.stack([step[column, :num_top] for _, step in self._top[:num_tokens]]).tolist()
        return [
            TokenLogprob(value, tuple(zip(token_ids, token_values, strict=True)))
            for value, token_ids, token_values in zip(chosen, ids, values, strict=True)
        ]

    def distribution(self, index: int, num_tokens: int) -> Distribution | None:
        """Return the reductions of the first tokens of a sequence; None if it did not ask for them.

        Args:
            index: Of the sequence in the batch.
            num_tokens: How many of its tokens.
        """
        rows = [row for row in self._reduced if self._recorded[row] == index]
        if not rows:
            return None
        position = self._reduced.index(rows[0])
        steps = [step[position] for step in self._reductions[:num_tokens]]
        table = torch.stack(steps, dim=1) if steps else torch.empty(6, 0)
        numbers = table.double().cpu().numpy()  # (6, T)
        return Distribution(
            entropy=numbers[0],
            self_certainty=numbers[1],
            top5_logprob=numbers[2],
            top20_logprob=numbers[3],
            top5_mass=numbers[4],
            logprob=numbers[5],
        )

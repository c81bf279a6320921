"""Norms relative to the usual ones of their tokens, for answers that are compared with each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from langnorm.norms.token_sums import TokenSums

if TYPE_CHECKING:
    from langnorm.norms.baseline import Baseline


@dataclass(frozen=True, slots=True)
class AnswerNorms:
    """The norms of an answer of T tokens.

    Attributes:
        token_ids: The tokens.
        norms: T - 1 rows with one norm per layer.
        sinks: Indices of the rows that are attention sinks.
    """

    token_ids: Sequence[int]
    norms: Sequence[Sequence[float]]
    sinks: Sequence[int] = ()


def relative_norms(
    answers: Sequence[AnswerNorms], layers: Sequence[int], baseline: Baseline | None = None
) -> list[list[list[float]]]:
    """Return z_t^l of `TokenTable` for some answers to one prompt.

    What is usual says the table of a profile; without one, these answers and what the process has seen of the model
    say it together, so that answers to one prompt are compared with the same.

    Args:
        answers: With norms of the same layers.
        layers: 0-based indices of the recorded layers.
        baseline: What their call compares with; None for nothing but the answers themselves.

    Returns:
        For each answer T - 1 rows with one number per layer, NaN where no token at all has norms of any use.
    """
    table = baseline.tokens if baseline and baseline.seen_tokens is None else None
    if table is None:
        sums = baseline.seen_tokens.copy() if baseline and baseline.seen_tokens else TokenSums(layers)
        for answer in answers:
            is_counted = np.ones(len(answer.norms), dtype=bool)
            is_counted[list(answer.sinks)] = False
            sums.update(answer.token_ids, answer.norms, is_counted)
        table = sums.table()
    if table is None:
        return [[[math.nan] * len(layers)] * len(answer.norms) for answer in answers]
    return [table.relative(answer.token_ids, answer.norms).tolist() for answer in answers]

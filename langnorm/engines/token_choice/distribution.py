"""Reduces distributions over the vocabulary to a few numbers, at the cost of few passes over them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

NUM_LARGEST = 20
"""How many most likely tokens a reduction reads."""

_CHUNK = 128  # of 152,000 log-probabilities, as many chunks as there are values in ten of them


def reduce_distribution(logprobs: Tensor, chosen: Tensor, top: Tensor) -> Tensor:
    """Return the numbers of a `Distribution` (R, 6), in the order of its fields.

    Args:
        logprobs: Log-probabilities of all tokens (R, V), finite.
        chosen: Those of the tokens that were taken (R,).
        top: The largest, descending (R, `NUM_LARGEST` or more, or V where that is less).
    """
    top = top[:, :NUM_LARGEST]
    columns = (
        -logprobs.exp().mul_(logprobs).sum(dim=-1),  # in place: another table of this size costs more than the product
        -math.log(logprobs.size(-1)) - logprobs.mean(dim=-1),
        top[:, :5].mean(dim=-1),
        top.mean(dim=-1),
        top[:, :5].exp().sum(dim=-1),
        chosen,
    )
    return torch.stack(columns, dim=-1)


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row, descending, and where they stand: what `topk` does, in one plain pass.

    The `count` largest values stand in the `count` chunks with the largest maxima, so only these chunks are sorted.

    Args:
        values: (R, V).
        count: How many; all where there are fewer.

    Returns:
        Values and places, each (R, count). Which of equal values come first is left open, as it is by `topk`.
    """
    num_values = values.size(-1)
    count = min(count, num_values)
    num_chunks = num_values // _CHUNK
    if num_chunks <= count:
        found = values.topk(count, dim=-1)
        return found.values, found.indices
    chunks = values[:, : num_chunks * _CHUNK].unflatten(1, (num_chunks, _CHUNK))  # (R, chunks, _CHUNK)
    best = chunks.amax(dim=-1).topk(count, dim=-1).indices[..., None]  # (R, count, 1)
    within = torch.arange(_CHUNK, device=values.device)
    rest = torch.arange(num_chunks * _CHUNK, num_values, device=values.device)  # what fills no chunk
    places = torch.cat([(best * _CHUNK + within).flatten(1), rest.expand(len(values), -1)], dim=1)
    found = values.gather(1, places).topk(count, dim=-1)
    return found.values, places.gather(1, found.indices)

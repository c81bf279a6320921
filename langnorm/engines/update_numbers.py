"""What a layer did to the residual stream, as four numbers per token; the same for every engine that sees states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from langnorm.interventions.token_norms import token_norms
from langnorm.reductions import Updates

if TYPE_CHECKING:
    from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny


def update_numbers(now: Tensor, before: Tensor, earlier: Tensor) -> Tensor:
    """Return the numbers of `Updates` (..., 4), in the order of its fields, float32.

    Args:
        now: States after a layer (..., d), in float32 or float64.
        before: What entered it (..., d), on the same device.
        earlier: The states after it of the tokens before these (..., d).
    """
    columns = (token_norms(now - before), token_norms(before), _cosines(now, before), _cosines(now, earlier))
    return torch.stack([column.float() for column in columns], dim=-1)


def build_updates(numbers: Tensor) -> Updates:
    """Return the updates of an answer from their numbers (T - 1, L, 4)."""
    table = numbers.double().cpu().numpy()
    return Updates(
        norms=table[..., 0],
        previous_norms=table[..., 1],
        layer_cosines=table[..., 2],
        token_cosines=table[..., 3],
    )


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosines between states (..., d); 0 where one has no length."""
    lengths = torch.linalg.vector_norm(first, dim=-1) * torch.linalg.vector_norm(second, dim=-1)
    cosines: Tensor = torch.linalg.vecdot(first, second) / lengths.clamp(min=_TINY)
    return cosines

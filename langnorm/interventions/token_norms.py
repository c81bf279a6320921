"""The norm of hidden states, as whoever reads or acts on them computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def token_norms(states: Tensor) -> Tensor:
    """Return `||h||_2` (...) of hidden states (..., d), in float32 whatever their dtype.

    Squares overflow in float16 and are coarse in bfloat16, so these are widened first; torch refuses to narrow float64.
    """
    dtype = torch.float64 if states.dtype == torch.float64 else torch.float32
    norms: Tensor = torch.linalg.vector_norm(states, dim=-1, dtype=dtype)
    return norms.float()

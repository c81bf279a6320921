"""The norm of hidden states, as all interventions compute it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def token_norms(states: Tensor) -> Tensor:
    """Return `||h||_2` (N,) of hidden states (N, d), in float32 whatever their dtype."""
    norms: Tensor = torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32)
    return norms

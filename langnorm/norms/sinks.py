"""Attention sinks: tokens whose norms are orders of magnitude above all others and say nothing about reasoning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

SINK_FACTOR = 10.0
"""A token with a norm above this multiple of its layer's median is an attention sink (arXiv 2402.17762): reasoning
moves norms by less than a factor of ten, sinks by orders of magnitude."""


def sinks_among(norms: Tensor) -> Tensor:
    """Return which tokens are attention sinks, judged by the medians of the tokens themselves, for want of others.

    States that overflowed count as sinks, they say as little: their norm is infinite, and NaN in the layers after that.

    Nothing waits for the device.

    Args:
        norms: One row per token (..., tokens, L), with NaN where there is no token, which is none that counts either.

    Returns:
        Booleans (..., tokens).
    """
    medians = norms.nanmedian(dim=-2, keepdim=True).values if norms.size(-2) else norms
    return ((norms > SINK_FACTOR * medians) | ~norms.isfinite()).any(dim=-1)


def sinks_by_medians(norms: NDArray[np.float64], medians: NDArray[np.float64] | None) -> NDArray[np.bool_]:
    """Return which tokens are attention sinks, as booleans (tokens,).

    Args:
        norms: One row per token (tokens, L).
        medians: The usual norm of each layer (L,), or None to judge by the tokens themselves.
    """
    if medians is None:
        import torch

        are_sinks: NDArray[np.bool_] = sinks_among(torch.from_numpy(norms)).numpy()
        return are_sinks
    above: NDArray[np.bool_] = np.any((norms > SINK_FACTOR * medians) | ~np.isfinite(norms), axis=-1)
    return above

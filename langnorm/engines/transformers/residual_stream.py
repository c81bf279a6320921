"""Gets the residual stream out of what a decoder layer returned, and puts another one in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langnorm.norms.layers import layer_output

if TYPE_CHECKING:
    from torch import Tensor


def get_residual_stream(output: Any) -> Tensor:
    """Return the hidden states (B, T, d) in the return value of a decoder layer.

    Raises:
        ModelError: There are none, or several residual streams.
    """
    return layer_output(output)


def put_residual_stream(output: Any, states: Tensor) -> Any:
    """Return the return value of a decoder layer with other hidden states (B, T, d) in it."""
    return (states, *output[1:]) if isinstance(output, tuple | list) else states

"""Gets the residual stream out of what a decoder layer returned, and puts another one in its place."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from langnorm.errors import ModelError


def get_residual_stream(output: Any) -> Tensor:
    """Return the residual stream from what a decoder layer returned.

    Most decoder layers of transformers 5 return the tensor; Falcon, GPT-J, Bloom, MPT and others
    return a tuple that starts with it.

    Args:
        output: The return value of a decoder layer's `forward`.

    Returns:
        The hidden states `(batch, position, hidden)`, the same object, in the model's dtype.

    Raises:
        ModelError: The output is neither a tensor nor a tuple that starts with one, or there are several residual
            streams.
    """
    states = output[0] if isinstance(output, tuple | list) and output else output
    if isinstance(states, Tensor):
        if states.ndim == 3:  # (batch, position, hidden)
            return states
        msg = (
            f"A decoder layer returned states of shape `{tuple(states.shape)}`, not (batch, position, hidden): models "
            'with several residual streams, such as Gemma 3n, are not supported. Use another model, or `norms="off"`.'
        )
        raise ModelError(msg)
    msg = (
        f"A decoder layer returned `{type(output).__name__}`, not hidden states. Allowed are a tensor or a "
        "tuple that starts with one. If the wrong layers were found, pass `layers_path` with the path of the "
        "decoder layers."
    )
    raise ModelError(msg)


def put_residual_stream(output: Any, states: Tensor) -> Any:
    """Return the return value of a decoder layer with other hidden states (B, T, d) in it."""
    return (states, *output[1:]) if isinstance(output, tuple | list) else states

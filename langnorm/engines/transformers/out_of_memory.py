"""Turns the out-of-memory errors of devices into a `MemoryLimitError` that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from langnorm.errors import MemoryLimitError

Result = TypeVar("Result")

# Parts of the messages of allocators for whose errors torch has no class.
_MESSAGES = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


def translate_memory_errors(
    run: Callable[[], Result], num_sequences: int, num_prompt_tokens: int, num_new_tokens: int
) -> Result:
    """Return what `run` returns; nothing of a batch that does not fit stays in memory. Other errors pass through.

    Args:
        run: Generates the batch.
        num_sequences: Number of sequences in the batch.
        num_prompt_tokens: Number of tokens of its longest prompt.
        num_new_tokens: Most tokens that a sequence may generate.

    Raises:
        MemoryLimitError: The batch does not fit.
    """
    try:
        return run()
    except (RuntimeError, MemoryError) as error:
        has_class = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not has_class and not any(message in str(error).lower() for message in _MESSAGES):
            raise
        reason = str(error).partition("\n")[0]
    # The error is gone by here: its frames held the tensors.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    prompt = f"a prompt of {num_prompt_tokens} tokens with up to {num_new_tokens} new ones"
    batch = prompt if num_sequences == 1 else f"{num_sequences} sequences, the longest of {prompt.removeprefix('a ')},"
    msg = (
        f"Beside the model, memory is too small for {batch}. Lower `max_tokens`, shorten the messages, or load the "
        f'model smaller, for example with `model_kwargs={{"dtype": "bfloat16"}}`. The device said: {reason}'
    )
    raise MemoryLimitError(msg)

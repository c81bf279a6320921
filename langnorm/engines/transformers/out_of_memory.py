"""Tells what did not fit into memory from other errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from langnorm.errors import MemoryLimitError

Result = TypeVar("Result")

# What allocators say for whose errors torch has no class.
_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


def translate_memory_errors(
    run: Callable[[], Result], num_rows: int, num_prompt_tokens: int, num_new_tokens: int
) -> Result:
    """Return what `run` returns, and leave nothing of a batch in memory that does not fit there.

    Args:
        run: Generates the batch.
        num_rows: Of the batch.
        num_prompt_tokens: Of its longest prompt.
        num_new_tokens: Most that a row may generate.

    Raises:
        MemoryLimitError: The batch does not fit.
    """
    try:
        return run()
    except (RuntimeError, MemoryError) as error:
        is_known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_known and not any(sign in str(error).lower() for sign in _SIGNS):
            raise
        reason = str(error).partition("\n")[0]
    # The error is gone by here: its frames held the tensors.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    prompt = f"a prompt of {num_prompt_tokens} tokens with up to {num_new_tokens} new ones"
    given = prompt if num_rows == 1 else f"{num_rows} sequences, the longest of {prompt.removeprefix('a ')},"
    msg = (
        f"Beside the model, memory is too small for {given}. Lower `max_tokens`, shorten the messages, or load the "
        f'model smaller, for example with `model_kwargs={{"dtype": "bfloat16"}}`. The device said: {reason}'
    )
    raise MemoryLimitError(msg)

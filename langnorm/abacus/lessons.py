"""What is learnt of a conversation: its tokens, and how much each of them weighs in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from langnorm.abacus.tokenizer import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.abacus.data.base import Example

_PROMPT_WEIGHT = 0.1  # of a prompt token's loss


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation: its token ids and the weight of each one's loss."""

    ids: list[int]
    weights: list[float]


def row_of(tokenizer: PreTrainedTokenizerBase, example: Example) -> Row:
    """Return the rendered example and how much each of its tokens weighs: 1 in what the assistant says, less elsewhere.

    Earlier turns have lost their reasoning, and must not teach to answer without it. So their first token, which
    decides that, weighs nothing, and in arithmetic, where the answer hangs on the reasoning, the rest weighs no more
    than the prompt.
    """
    prompt, completion = render(tokenizer, example)
    weights = [_PROMPT_WEIGHT] * len(prompt) + [1.0] * len(completion)
    earlier = _ends_of(tokenizer("<|im_start|>assistant\n")["input_ids"], prompt)[:-1]  # the last is the completion's
    for start in earlier:
        stop = prompt.index(tokenizer.eos_token_id, start) + 1
        if example.skill != "arithmetic":
            weights[start:stop] = [1.0] * (stop - start)
        weights[start] = 0.0
    return Row(prompt + completion, weights)


def _ends_of(part: list[int], ids: list[int]) -> list[int]:
    """Return the places right behind each occurrence of `part`."""
    return [i + len(part) for i in range(len(ids) - len(part) + 1) if ids[i : i + len(part)] == part]

"""What is learnt of a conversation: its tokens, and how much each of them weighs in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from langnorm.abacus.tokenizer import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.abacus.generator.base import Example

_PROMPT_WEIGHT = 0.1  # of a prompt token's loss

Lesson = Literal["all", "thinking"]
"""What weighs how much in the loss. `all`: 1 for what the assistant says, 0.1 for the prompt. `thinking`: the same, but
earlier turns, which have lost their reasoning, do not teach to answer without it: their first token, which decides
that, weighs nothing, and in arithmetic, where the answer hangs on the reasoning, the rest weighs no more than the
prompt."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as training sees it: its token ids and the weight of each one's loss."""

    ids: list[int]
    weights: list[float]


def render_conversation(tokenizer: PreTrainedTokenizerBase, example: Example, lesson: Lesson) -> Conversation:
    """Return the rendered example and how much each of its tokens weighs."""
    prompt, completion = render(tokenizer, example)
    is_about_thinking = lesson == "thinking"
    weights = [_PROMPT_WEIGHT] * len(prompt) + [1.0] * len(completion)
    earlier = _find_ends(tokenizer("<|im_start|>assistant\n")["input_ids"], prompt)[:-1]  # the last is the completion's
    for start in earlier:
        stop = prompt.index(tokenizer.eos_token_id, start) + 1
        if not (is_about_thinking and example.skill == "arithmetic"):
            weights[start:stop] = [1.0] * (stop - start)
        if is_about_thinking:
            weights[start] = 0.0
    return Conversation(prompt + completion, weights)


def _find_ends(part: list[int], ids: list[int]) -> list[int]:
    """Return the places right behind each occurrence of `part`."""
    return [i + len(part) for i in range(len(ids) - len(part) + 1) if ids[i : i + len(part)] == part]

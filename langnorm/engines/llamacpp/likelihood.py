"""How likely given texts are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from langnorm.engines.llamacpp.library import LlamaContext, PassTokens
from langnorm.engines.requests import Likelihood
from langnorm.errors import MemoryLimitError


def score_continuation(
    context: LlamaContext,
    slot: int,
    prompt_ids: Sequence[int],
    continuation_ids: Sequence[int],
    make_room: Callable[[], bool],
) -> Likelihood:
    """Return how likely a continuation is after a prompt.

    Args:
        context: Where nothing else runs meanwhile.
        slot: A free one, which is free again afterwards.
        prompt_ids: Of the prompt.
        continuation_ids: Of what follows it.
        make_room: Forgets what nobody runs, one thing at a time; returns False when there is nothing left.

    Raises:
        MemoryLimitError: There is no room for the text beside the sequences that are running.
    """
    if not continuation_ids:
        return Likelihood((), is_greedy=True)  # an empty one is certain
    ids = [*prompt_ids, *continuation_ids[:-1]]
    first = len(prompt_ids) - 1  # from this token on, what follows is scored
    logprobs, is_greedy = [], True
    try:
        for start in range(0, len(ids), context.most_tokens):
            tokens = ids[start : start + context.most_tokens]
            num_scored = min(len(tokens), max(0, start + len(tokens) - first))
            part = PassTokens(slot, start, tokens, num_scored)
            while not context.run([part]):
                if not make_room():
                    msg = (
                        "There is no room for this text beside the answers under way. Try again, or raise "
                        "`context_length` of `engine_kwargs`."
                    )
                    raise MemoryLimitError(msg)
            for row in range(len(tokens) - num_scored, len(tokens)):
                scores = torch.from_numpy(context.logits(row)).log_softmax(dim=-1)
                token = continuation_ids[start + row - first]
                logprobs.append(float(scores[token]))
                is_greedy = is_greedy and int(scores.argmax()) == token
    finally:
        context.cut(slot, 0)
    return Likelihood(tuple(logprobs), is_greedy)

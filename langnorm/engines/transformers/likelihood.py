"""How likely a model finds given texts, in padded batches."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.requests import Likelihood

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_MOST_LOGITS = 2**27  # in one forward pass: half a gigabyte in float32


@torch.inference_mode()
def score_continuations(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> list[Likelihood]:
    """Return the likelihood of each continuation after its prompt, in their order.

    Args:
        model: A causal language model.
        prompts: Token ids of the prompts, none of them empty.
        continuations: Token ids of what follows each; an empty one is certain.
    """
    likelihoods: dict[int, Likelihood] = {}
    for numbers in _batches(model, prompts, continuations):
        pairs = [(prompts[number], continuations[number]) for number in numbers]
        likelihoods.update(zip(numbers, _score_batch(model, pairs), strict=True))
    return [likelihoods[number] for number in range(len(prompts))]


def _batches(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> Iterator[list[int]]:
    """Yield the numbers of texts that run together: of similar lengths, and no more than memory has room for."""
    embeddings: Any = model.get_input_embeddings()
    vocabulary_size = embeddings.weight.size(0)
    lengths = [len(prompt) + len(continuation) for prompt, continuation in zip(prompts, continuations, strict=True)]
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        longest = lengths[batch[0]] if batch else lengths[number]
        if batch and (len(batch) + 1) * longest * vocabulary_size > _MOST_LOGITS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _score_batch(model: PreTrainedModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[Likelihood]:
    # Padding is on the right, where no token of a causal model looks; the last token is not run.
    texts = [[*prompt, *continuation][:-1] or [*prompt] for prompt, continuation in pairs]
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=model.device)
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts], device=model.device)
    first = min(len(prompt) for prompt, _ in pairs) - 1
    logits, first = _run(model, ids, mask, first)
    for sequence, (prompt, continuation) in enumerate(pairs):
        start = len(prompt) - 1 - first
        scores = logits[sequence, start : start + len(continuation)].float()  # (T, V)
        tokens = torch.tensor(list(continuation), dtype=torch.long, device=scores.device)  # (T,)
        chosen = scores.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]
        is_greedy = bool((scores.argmax(dim=-1) == tokens).all())
        yield Likelihood(tuple(chosen.tolist()), is_greedy)


def _run(model: PreTrainedModel, ids: Tensor, mask: Tensor, first: int) -> tuple[Tensor, int]:
    """Return the logits (B, T, V) from position `first` on or from an earlier one, and that position."""
    options: dict[str, Any] = {"use_cache": False}
    forward: Any = model
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = ids.size(1) - first
    else:
        first = 0
    return forward(input_ids=ids, attention_mask=mask, **options).logits, first

"""Log-probabilities are those of a plain forward pass over the whole sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Request

PROMPTS = (tuple(range(40, 52)), tuple(range(60, 64)), tuple(range(30, 50)))


def expected(model: Any, prompt: tuple[int, ...], tokens: list[int]) -> torch.Tensor:
    """Returns the log-probabilities (T, V) without cache, padding or anything of langnorm's."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0]
    return logits[len(prompt) - 1 : -1].float().log_softmax(dim=-1)


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_they_are_those_of_the_model(engine_of, model_of, family: str) -> None:
    """In a padded batch, sampled hot or greedy, whatever is masked: before temperature and all that chooses."""
    requests = [
        Request(PROMPTS[0], Sampling(max_tokens=12), top_logprobs=3),
        Request(PROMPTS[1], Sampling(max_tokens=9, temperature=1.3, top_k=5, seed=1), top_logprobs=0),
        Request(PROMPTS[2], Sampling(max_tokens=12)),
        Request(PROMPTS[2], Sampling(max_tokens=7, temperature=0.7, seed=2, n=2), top_logprobs=5),
    ]
    responses = engine_of(family).generate(requests)
    for request, response in zip(requests, responses, strict=True):
        for completion in response.completions:
            if request.top_logprobs is None:
                assert completion.logprobs == []
                continue
            table = expected(model_of(family), request.prompt_ids, completion.token_ids)
            assert len(completion.logprobs) == len(completion.token_ids)
            for row, token, found in zip(table, completion.token_ids, completion.logprobs, strict=True):
                assert found.logprob == pytest.approx(row[token].item(), abs=1e-4)
                assert len(found.top) == request.top_logprobs
                values = row.topk(max(1, len(found.top))).values.tolist()
                assert [value for _, value in found.top] == pytest.approx(values[: len(found.top)], abs=1e-4)

"""Distributions are reduced to what a plain pass in float64 says of them."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Completion, Record, Request
from langnorm.engines.token_choice.distribution import largest
from langnorm.engines.token_choice.logprobs import LOWEST_LOGPROB, LogprobRecorder
from langnorm.reductions import Distribution
from tests.reference.reductions import distribution_of, reference_distributions
from tests.support.calls import PROMPTS, answer, answers
from tests.support.models import FAMILIES

DISTRIBUTION = Record(norms=False, distribution=True)
NAMES = [field.name for field in fields(Distribution)]


def assert_distribution(completion: Completion, expected: list[dict[str, float]]) -> None:
    """Checks all numbers of all tokens."""
    found = completion.reductions.distribution
    assert found is not None
    for name in NAMES:
        values = getattr(found, name).tolist()
        assert values == pytest.approx([row[name] for row in expected], rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_those_of_a_plain_pass(family: str, model_of, engine_of) -> None:
    """In a padded batch, sampled or greedy, whatever others of the batch ask for."""
    requests = [
        Request(PROMPTS[0], Sampling(max_tokens=9), DISTRIBUTION),
        Request(PROMPTS[1], Sampling(max_tokens=4, temperature=1.3, top_k=5, seed=1), Record(layers=(1,))),
        Request(PROMPTS[2], Sampling(max_tokens=12, temperature=0.4, seed=2), DISTRIBUTION, top_logprobs=3),
        Request(PROMPTS[3], Sampling(max_tokens=7), Record(layers=(1, 2), distribution=True)),
        Request(PROMPTS[4], Sampling(max_tokens=5), top_logprobs=30),
    ]
    for request, completion in zip(requests, answers(engine_of(family), requests), strict=True):
        assert bool(completion.norms) == bool(request.norm_layers)
        assert bool(completion.logprobs) == (request.top_logprobs is not None)
        if not request.records_distribution:
            assert completion.reductions.distribution is None
            continue
        assert_distribution(
            completion, reference_distributions(model_of(family), request.prompt_ids, completion.token_ids)
        )


def test_a_stream_ends_with_them(engine_of) -> None:
    """And they are those of the whole answer; a single token has a row too."""
    engine = engine_of("qwen2")
    for num_tokens in (1, 6):
        request = Request(PROMPTS[0], Sampling(max_tokens=num_tokens), DISTRIBUTION)
        whole = answer(engine, request).reductions.distribution
        streamed = [delta.completion for delta in engine.stream(request)][-1].reductions.distribution
        for name in NAMES:
            assert getattr(streamed, name).tolist() == getattr(whole, name).tolist()
            assert len(getattr(whole, name)) == num_tokens


def recorded(scores: torch.Tensor, tokens: list[int], top_counts: list[Any], is_reduced: list[bool]) -> LogprobRecorder:
    """Returns a recorder that has seen one step."""
    recorder = LogprobRecorder(top_counts, is_reduced)
    assert recorder(torch.tensor([[0]] * len(scores)), scores) is scores
    recorder.add_chosen(torch.tensor(tokens))
    return recorder


@pytest.mark.parametrize("num_tokens", [1, 4, 19, 151_936])
def test_vocabularies_of_any_size_are_reduced(num_tokens: int) -> None:
    """The five and the twenty most likely tokens are all where there are fewer."""
    scores = 3 * torch.randn(2, num_tokens, generator=torch.Generator().manual_seed(num_tokens))
    recorder = recorded(scores, [0, num_tokens - 1], [None, 1], [True, True])
    for index, token in enumerate((0, num_tokens - 1)):
        found = recorder.distribution(index, 1)
        expected = distribution_of(scores[index].double().tolist(), token)
        assert found is not None
        for name in NAMES:
            assert getattr(found, name).tolist() == [pytest.approx(expected[name], rel=1e-4, abs=1e-5)], name
    assert recorder.get(0, 1) == []
    [logprob] = recorder.get(1, 1)
    assert logprob.top[0][0] == scores[1].argmax()


def test_tokens_without_a_chance_leave_numbers_finite() -> None:
    """Some models put minus infinity on tokens that only fill up the vocabulary."""
    scores = torch.tensor([[1.0, 1.0, -math.inf, -math.inf]])
    found = recorded(scores, [0], [0], [True]).distribution(0, 1)
    assert found is not None
    assert found.entropy.tolist() == pytest.approx([math.log(2)])
    assert found.logprob.tolist() == pytest.approx([-math.log(2)])
    assert found.self_certainty.tolist() == pytest.approx([-math.log(4) + (math.log(2) - LOWEST_LOGPROB) / 2])


def test_nobody_asks_for_nothing() -> None:
    """Then the processor is not needed; those that did not ask have none."""
    assert not LogprobRecorder([None, None], [False, False]).is_needed
    recorder = recorded(torch.randn(3, 9), [1, 2, 3], [None, 0, None], [False, False, True])
    assert recorder.is_needed
    assert (recorder.distribution(0, 1), recorder.distribution(1, 1)) == (None, None)
    assert (recorder.get(0, 1), len(recorder.get(1, 1)), recorder.get(2, 1)) == ([], 1, [])
    assert recorder.distribution(2, 0).entropy.shape == (0,)


@given(st.integers(1, 6000), st.integers(1, 40), st.integers(0, 99), st.booleans())
def test_the_largest_are_those_of_topk(num_values: int, count: int, seed: int, has_ties: bool) -> None:
    """For vocabularies of any size; the places are theirs, also of values that occur twice."""
    values = torch.randn(2, num_values, generator=torch.Generator().manual_seed(seed))
    if has_ties:
        values = values.round()
    found, places = largest(values, count)
    assert found.tolist() == values.topk(min(count, num_values), dim=-1).values.tolist()
    assert values.gather(1, places).tolist() == found.tolist()
    assert all(len(set(row)) == len(row) for row in places.tolist())

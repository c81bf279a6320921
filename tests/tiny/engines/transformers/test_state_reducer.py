"""Updates of layers and means of states are those of one plain pass over the text, in float64."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Completion, Partial, Record, Request
from langnorm.interventions.options import Suppression
from langnorm.interventions.plan import Plan, Plans
from langnorm.reductions import Updates
from tests.reference.reductions import reference_states, updates_of
from tests.support.calls import PROMPTS, answer, answers, num_hooks, plain_tokens
from tests.support.models import FAMILIES, NUM_LAYERS

ALL = tuple(range(NUM_LAYERS))
WHOLE = Record(layers=ALL, updates=True, mean_states=True)
NAMES = [field.name for field in fields(Updates)]


def assert_reductions(model: Any, request: Request, completion: Completion) -> None:
    """Checks a completion against the oracle, which runs its tokens once more, plainly."""
    updates, means = completion.reductions.updates, completion.reductions.mean_states
    num_prompt = len(request.prompt_ids)
    states = reference_states(model, [*request.prompt_ids, *completion.token_ids][:-1])
    assert (updates is not None) == bool(request.update_layers)
    if updates is not None:
        expected = updates_of(states, request.update_layers, num_prompt)
        shape = (len(completion.token_ids) - 1, len(request.update_layers))
        for name in NAMES:
            found = getattr(updates, name)
            assert found.shape == shape
            np.testing.assert_allclose(found, np.reshape(expected[name], shape), rtol=2e-3, atol=2e-4, err_msg=name)
    assert (means is not None) == request.records_mean_states
    if means is not None:
        of_answer = states[num_prompt:]
        if not len(of_answer):
            assert means.shape == (0, states.size(-1))
            return
        scale = of_answer.abs().max().item()
        np.testing.assert_allclose(means, of_answer.mean(dim=0).numpy(), rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_those_of_a_plain_pass(family: str, model_of, engine_of) -> None:
    """In a padded batch whose sequences end at different times, longer and shorter than what is reduced at once."""
    plain = plain_tokens(model_of(family), PROMPTS[0], max_new_tokens=25)
    ends = {"eos_token_id": (plain[min(10, len(plain) - 1)],)}
    model, engine = model_of(family, **ends), engine_of(family, **ends)
    means, some = Record(norms=False, mean_states=True), Record(layers=(0, 2), updates=True)
    records = [WHOLE, Record(layers=(1,)), means, WHOLE, some]
    limits = (25, 20, 9, 1, 18)
    requests = [
        Request(prompt, Sampling(max_tokens=limit), record)
        for prompt, limit, record in zip(PROMPTS, limits, records, strict=True)
    ]
    for request, completion in zip(requests, answers(engine, requests), strict=True):
        assert_reductions(model, request, completion)
        assert bool(completion.norms) == (bool(request.norm_layers) and len(completion.token_ids) > 1)
    assert num_hooks(model) == 0


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_prompts_in_pieces_and_samples_change_nothing(chunk_size: int | None, model_of, engine_of) -> None:
    """Sampled answers that share their prompt, which is run in several passes; a stop text ends one of them."""
    model, engine = model_of("qwen3"), engine_of("qwen3")
    before = model.generation_config.prefill_chunk_size
    model.generation_config.prefill_chunk_size = chunk_size
    try:
        sampled = Request(PROMPTS[2], Sampling(max_tokens=19, temperature=1.0, n=3, seed=4), WHOLE)
        text = next(piece for piece in answer(engine, sampled_once(sampled)).pieces[3:] if piece.strip())
        stopped = Request(PROMPTS[1], Sampling(max_tokens=19, temperature=1.0, seed=4, stop=(text,)), WHOLE)
        responses = engine.generate([sampled, stopped])
    finally:
        model.generation_config.prefill_chunk_size = before
    for request, response in zip((sampled, stopped), responses, strict=True):
        for completion in response.completions:
            assert_reductions(model, request, completion)


def sampled_once(request: Request) -> Request:
    """Returns the same request for one sample."""
    return replace(request, sampling=replace(request.sampling, n=1))


def test_a_stream_ends_with_them(engine_of, model_of) -> None:
    """And they are those of the whole answer."""
    engine, request = engine_of("gemma2"), Request(PROMPTS[0], Sampling(max_tokens=21), WHOLE)
    streamed = [delta.completion for delta in engine.stream(request)][-1]
    assert streamed is not None
    assert_reductions(model_of("gemma2"), request, streamed)


def test_interventions_are_seen(engine_of) -> None:
    """What flows on counts: a suppressed state has a tenth of the length, and the next layer starts from there."""
    plans = Plans(suppression=Plan(Suppression(), (1,), (0.0,)))
    request = Request(PROMPTS[0], Sampling(max_tokens=6), Record(layers=(1, 2), updates=True), plans=plans)
    found = answer(engine_of("llama"), request)
    updates = found.reductions.updates
    assert updates is not None
    np.testing.assert_allclose(updates.previous_norms[:, 1], np.array(found.norms)[:, 0], rtol=1e-5)


class Watcher:
    """A pruner that stops nobody, and keeps what it saw."""

    every = 5

    def __init__(self) -> None:
        self.seen: list[Partial] = []

    def stopped(self, samples: Any) -> list[int]:
        """Return nobody."""
        self.seen += samples
        return []


def test_pruners_see_the_same_of_samples_that_go_on(engine_of, model_of) -> None:
    """Of the tokens so far."""
    watcher = Watcher()
    record = replace(WHOLE, distribution=True)
    request = Request(PROMPTS[0], Sampling(max_tokens=12, temperature=1.0, n=2, seed=1), record, pruner=watcher)
    completions = engine_of("qwen2").generate([request])[0].completions
    assert len(watcher.seen) >= 4
    for partial in watcher.seen:
        num_tokens = len(partial.token_ids)
        whole = next(one for one in completions if one.token_ids[:num_tokens] == list(partial.token_ids))
        begun = replace(whole, token_ids=list(partial.token_ids), reductions=partial.reductions)
        assert_reductions(model_of("qwen2"), request, begun)
        assert partial.reductions.distribution.entropy.shape == (num_tokens,)


def test_states_in_half_precision_are_widened(engine_of) -> None:
    """Squares of what float16 holds are more than it holds."""
    engine = engine_of("llama", dtype=torch.bfloat16)
    found = answer(engine, Request(PROMPTS[0], Sampling(max_tokens=10), WHOLE)).reductions
    assert found.updates is not None
    assert found.mean_states is not None
    assert np.isfinite(found.mean_states).all()
    assert (np.abs(found.updates.layer_cosines) <= 1.0001).all()

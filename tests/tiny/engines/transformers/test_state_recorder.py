"""States and prompts are recorded for requests that ask for them, and are those of one plain pass over the text."""

from __future__ import annotations

import pytest
import torch

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from tests.support.calls import PROMPTS, num_hooks

LAYERS = (1, 3)
SAMPLING = Sampling(max_tokens=9)


@torch.no_grad()
def plain_states(model, ids) -> torch.Tensor:
    """Returns the outputs of the layers for a whole text (tokens, L, d), by hooks of our own."""
    outputs = {}
    handles = [
        model.model.layers[layer].register_forward_hook(lambda _m, _i, out, layer=layer: outputs.update({layer: out}))
        for layer in LAYERS
    ]
    model(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    states = [outputs[layer][0] if isinstance(outputs[layer], tuple) else outputs[layer] for layer in LAYERS]
    return torch.stack([state.reshape(len(ids), -1) for state in states], dim=1)


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "olmo2"])
@pytest.mark.parametrize("chunk_size", [None, 5])
def test_states_are_those_of_a_plain_pass(family, chunk_size, engine_of, model_of) -> None:
    """In a padded batch with neighbours that ask for less, streamed or not, the prompt in one pass or in several."""
    engine, model = engine_of(family), model_of(family)
    records = [
        Record(layers=LAYERS, states=True, prompt=True),
        None,
        Record(layers=LAYERS, states=True, norms=False),
        Record(layers=LAYERS, prompt=True),
        Record(layers=LAYERS),
    ]
    before = model.generation_config.prefill_chunk_size
    model.generation_config.prefill_chunk_size = chunk_size
    try:
        requests = [Request(prompt, SAMPLING, record) for prompt, record in zip(PROMPTS, records, strict=True)]
        completions = [response.completions[0] for response in engine.generate(requests)]
    finally:
        model.generation_config.prefill_chunk_size = before
    for request, completion in zip(requests, completions, strict=True):
        record, num_prompt = request.record, len(request.prompt_ids)
        states = plain_states(model, [*request.prompt_ids, *completion.token_ids][:-1])
        norms = torch.linalg.vector_norm(states, dim=-1)
        has_norms, has_states = bool(record and record.norms), bool(record and record.states)
        is_whole = bool(record and record.prompt)
        assert (completion.norms != []) == has_norms
        assert (completion.prompt_norms != []) == (has_norms and is_whole)
        assert (completion.states is not None) == has_states
        assert (completion.prompt_states is not None) == (has_states and is_whole)
        if has_norms:
            torch.testing.assert_close(torch.tensor(completion.norms), norms[num_prompt:], rtol=1e-4, atol=1e-4)
        if completion.prompt_norms:
            torch.testing.assert_close(torch.tensor(completion.prompt_norms), norms[:num_prompt], rtol=1e-4, atol=1e-4)
        if completion.states is not None:
            torch.testing.assert_close(completion.states, states[num_prompt:], rtol=1e-3, atol=1e-3)
        if completion.prompt_states is not None:
            torch.testing.assert_close(completion.prompt_states, states[:num_prompt], rtol=1e-3, atol=1e-3)
    assert num_hooks(model) == 0


def test_a_stream_ends_with_the_states(engine_of) -> None:
    """Its last delta has the completion that `generate` returns."""
    engine = engine_of("qwen3")
    request = Request(PROMPTS[0], SAMPLING, Record(layers=LAYERS, states=True, prompt=True))
    whole = engine.generate([request])[0].completions[0]
    streamed = [delta.completion for delta in engine.stream(request)][-1]
    assert streamed is not None
    torch.testing.assert_close(streamed.states, whole.states)
    torch.testing.assert_close(streamed.prompt_states, whole.prompt_states)
    assert streamed.prompt_norms == whole.prompt_norms

"""The recorded norms are those of the definition, whatever shared the batch and however it ended."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from langnorm.engines.requests import Record
from langnorm.engines.sequence import PendingSequence
from langnorm.engines.transformers.decoder_layers import find_decoder_layers
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.engines.transformers.residual_stream import get_residual_stream
from langnorm.errors import OptionError
from langnorm.interventions.options import Steering
from langnorm.interventions.plan import Plan, Plans
from tests.reference.norms import reference_norms
from tests.support.calls import PROMPTS, answer, answers, ask, counted_passes, plain_tokens
from tests.support.models import FAMILIES, NUM_LAYERS

ALL = tuple(range(NUM_LAYERS))


def assert_norms(model, request, completion) -> None:
    """Checks a completion against the oracle, which runs its tokens once more, plainly."""
    prompt = request.prompt_ids
    expected = reference_norms(model, [*prompt, *completion.token_ids], request.norm_layers, len(prompt))
    assert expected.shape == (len(completion.token_ids) - 1, len(request.norm_layers))
    recorded = torch.tensor(completion.norms, dtype=torch.float64).reshape(expected.shape)
    torch.testing.assert_close(recorded, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_single_answer_has_norms_of_definition(family, model_of, engine_of) -> None:
    """A request alone gets the norms of every layer, the last one before the final norm."""
    request = ask(PROMPTS[1], layers=ALL, max_tokens=30)

    completion = answer(engine_of(family), request)

    assert len(completion.norms) >= 8
    assert_norms(model_of(family), request, completion)


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_has_norms_of_definition(family, model_of, engine_of) -> None:
    """Rows of one batch get their own norms, with unequal prompts and unequal lengths of answer."""
    model = model_of(family)
    limits = (12, 30, 3, 1, 21)
    requests = [ask(p, layers=ALL, max_tokens=m) for p, m in zip(PROMPTS, limits, strict=True)]

    with counted_passes(model) as passes:
        completions = answers(engine_of(family), requests)

    lengths = [len(c.token_ids) for c in completions]
    assert passes.batch_sizes == [len(requests)] * max(lengths)
    assert len(set(lengths)) >= 3
    for request, completion in zip(requests, completions, strict=True):
        assert_norms(model, request, completion)


@pytest.mark.parametrize("family", ["qwen3", "mistral", "gemma2", "gpt2", "mixtral"])
def test_rows_are_cut_at_their_own_end_token(family, model_of, engine_of) -> None:
    """A row that ends early has no norms of the padding after it, and its neighbours are not disturbed."""
    plain = [plain_tokens(model_of(family), prompt, max_new_tokens=25) for prompt in PROMPTS]
    ends = {"eos_token_id": (plain[0][6], plain[2][14])}
    model, engine = model_of(family, **ends), engine_of(family, **ends)
    requests = [ask(prompt, layers=(0, 3), max_tokens=25) for prompt in PROMPTS]

    completions = answers(engine, requests)

    lengths = {len(c.token_ids) for c in completions}
    assert len(lengths) > 1
    for request, completion in zip(requests, completions, strict=True):
        has_ended = completion.token_ids[-1] in ends["eos_token_id"]
        assert completion.finish_reason == ("stop" if has_ended else "length")
        assert has_ended or len(completion.token_ids) == 25
        assert not set(completion.token_ids[:-1]) & set(ends["eos_token_id"])
        assert_norms(model, request, completion)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_sampled_completions_have_their_own_norms(family, model_of, engine_of) -> None:
    """Each of the n completions of a request gets the norms of its own tokens."""
    request = ask(PROMPTS[4], layers=(1, 3), temperature=1.0, n=4, seed=3, max_tokens=20)
    greedy = ask(PROMPTS[2], layers=(1, 3), max_tokens=12)

    sampled, other = engine_of(family).generate([request, greedy])

    assert len({tuple(c.token_ids) for c in sampled.completions}) == 4
    for completion in sampled.completions:
        assert_norms(model_of(family), request, completion)
    assert_norms(model_of(family), greedy, other.completions[0])


@pytest.mark.parametrize("family", ["qwen3", "olmo2", "gpt_neox"])
def test_streamed_answer_has_norms_of_definition(family, model_of, engine_of) -> None:
    """The last delta of a stream carries the same norms as the whole answer."""
    request = ask(PROMPTS[0], layers=ALL, max_tokens=20)

    *earlier, last = engine_of(family).stream(request)

    assert all(delta.completion is None for delta in earlier)
    assert last.completion.norms == answer(engine_of(family), request).norms
    assert_norms(model_of(family), request, last.completion)


async def test_async_answers_have_norms_of_definition(model_of, engine_of) -> None:
    """Asynchronous answers and streams record what their synchronous twins do."""
    engine, request = engine_of("qwen2"), ask(PROMPTS[0], layers=ALL, max_tokens=16)

    (response,) = await engine.agenerate([request])
    deltas = [delta async for delta in engine.astream(request)]

    assert_norms(model_of("qwen2"), request, response.completions[0])
    assert_norms(model_of("qwen2"), request, deltas[-1].completion)


def test_requests_of_one_batch_choose_their_layers(model_of, engine_of) -> None:
    """Each request of a batch gets the columns it asked for, in its order, or nothing."""
    choices = [(3,), (), (0, 2), ALL, (2, 0)]
    requests = [ask(p, layers=ls, max_tokens=15) for p, ls in zip(PROMPTS, choices, strict=True)]

    completions = answers(engine_of("llama"), requests)

    assert completions[1].norms == []
    for request, completion in zip(requests, completions, strict=True):
        if request.norm_layers:
            assert_norms(model_of("llama"), request, completion)


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 17])
def test_last_token_has_no_row(num_tokens, engine_of) -> None:
    """T tokens give T - 1 rows: the last token is never run through the model."""
    completion = answer(engine_of("qwen3"), ask(PROMPTS[0], layers=(0, 1), max_tokens=num_tokens))

    assert len(completion.token_ids) == num_tokens
    assert [len(row) for row in completion.norms] == [2] * (num_tokens - 1)


def test_row_ended_by_stop_text_keeps_its_norms(model_of, engine_of) -> None:
    """A row that ends at a stop text in a batch has rows for all of its tokens but the last."""
    model, engine = model_of("llama"), engine_of("llama")
    pieces = answer(engine, ask(PROMPTS[0], max_tokens=20)).pieces
    stop = next(piece for piece in pieces[5:] if piece.strip())
    requests = [
        ask(PROMPTS[0], layers=ALL, stop=stop, max_tokens=20),
        ask(PROMPTS[2], layers=ALL, max_tokens=20),
    ]

    completions = answers(engine, requests)

    assert completions[0].finish_reason == "stop"
    assert 1 < len(completions[0].token_ids) < 20
    for request, completion in zip(requests, completions, strict=True):
        assert_norms(model, request, completion)


@pytest.mark.parametrize("layers", [(NUM_LAYERS,), (0, -NUM_LAYERS - 1)])
def test_layer_outside_model_is_refused_before_any_compute(layers, model_of, engine_of) -> None:
    """A layer that the model lacks is an error, and nothing of the call is run."""
    with counted_passes(model_of("llama")) as passes, pytest.raises(OptionError, match="outside this model"):
        engine_of("llama").generate([ask(PROMPTS[0]), ask(PROMPTS[1], layers=layers)])

    assert len(passes) == 0


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_norms_of_bfloat16_model_are_computed_in_float32(family, model_of, engine_of) -> None:
    """A bfloat16 model's norms are those of its own states, without rounding to bfloat16."""
    model, engine = model_of(family, dtype=torch.bfloat16), engine_of(family, dtype=torch.bfloat16)
    states = []
    handle = find_decoder_layers(model)[2].register_forward_hook(
        lambda _module, _inputs, output: states.append(get_residual_stream(output)[0, -1].double())
    )
    try:
        completion = answer(engine, ask(PROMPTS[0], layers=(2,), max_tokens=16))
    finally:
        handle.remove()

    expected = torch.stack(states[1:]).square().sum(dim=-1).sqrt()
    recorded = torch.tensor(completion.norms, dtype=torch.float64)[:, 0]
    torch.testing.assert_close(recorded, expected, rtol=1e-5, atol=0)
    assert not torch.equal(recorded, recorded.to(torch.bfloat16).double())


def test_float64_model_has_norms_and_states_of_definition(model_of, engine_of) -> None:
    """Its norms are narrowed: torch refuses to take them in float32 at once. Acting on its states works too."""
    model, engine = model_of("llama", dtype=torch.float64), engine_of("llama", dtype=torch.float64)
    request = ask(PROMPTS[0], layers=ALL, max_tokens=12)
    acted = replace(request, plans=Plans(steering=Plan(Steering(threshold=1e9), ALL, (1e9,) * NUM_LAYERS)))

    for completion in answers(engine, [request, acted]):
        assert_norms(model, request, completion)
    recorded = answer(engine, replace(request, record=Record(layers=ALL, prompt=True)))
    assert len(recorded.prompt_norms) == len(request.prompt_ids)


def test_norms_of_float16_model_do_not_overflow(tokenizer, model_of) -> None:
    """Norms beyond the range of float16 are finite."""
    model = model_of("llama", dtype=torch.float16, seed=50)
    with torch.no_grad():
        model.model.embed_tokens.weight.uniform_(-25_000, 25_000)

    completion = answer(TransformersEngine(model, tokenizer), ask(PROMPTS[0], layers=ALL, max_tokens=8))

    norms = torch.tensor(completion.norms)
    assert norms.isfinite().all()
    assert norms.min() > torch.finfo(torch.float16).max


@pytest.mark.parametrize(
    "field", [{"use_cache": False}, {"cache_implementation": "static"}, {"prefill_chunk_size": 4}], ids=str
)
def test_norms_do_not_depend_on_how_model_runs(field, tokenizer, model_of) -> None:
    """Rows belong to their tokens without a cache, with a static one and with a prefill in pieces."""
    model = model_of("llama", seed=51)
    request = ask(PROMPTS[2], layers=ALL, max_tokens=10)
    before = {name: getattr(model.generation_config, name) for name in field}
    model.generation_config.update(**field)
    try:
        completion = answer(TransformersEngine(model, tokenizer), request)
    finally:
        model.generation_config.update(**before)

    assert_norms(model, request, completion)


def test_nothing_is_learnt_of_the_padding_after_a_cancelled_sequence(tokenizer, model_of, monkeypatch) -> None:
    """Usual norms are those of generated tokens, although the batch goes on with others."""
    model = model_of("llama", seed=52)
    engine = TransformersEngine(model, tokenizer)
    cancelled, other = (PendingSequence(ask(PROMPTS[i], layers=ALL, max_tokens=40), 0, 0) for i in range(2))
    learnt: list[list[int]] = []
    monkeypatch.setattr(engine.statistics, "update", lambda _rows, _layers, lengths, _ids: learnt.append(lengths))

    with counted_passes(model) as passes:

        def cancel(*_: object) -> None:
            if len(passes) == 5:
                cancelled.cancel()

        handle = find_decoder_layers(model)[1].register_forward_hook(cancel)
        engine._enqueue([cancelled, other])
        completion = other.future.result(60)
        handle.remove()

    assert completion.token_ids == plain_tokens(model, PROMPTS[1], max_new_tokens=40)
    assert learnt == [[4, len(completion.token_ids) - 1]]

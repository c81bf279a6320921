"""The numbers of a lens are those of one plain pass over the text, in float64."""

from __future__ import annotations

import asyncio
import copy
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Completion, Record, Request
from langnorm.engines.transformers import lens_recorder
from langnorm.engines.transformers.batch import BatchGenerator
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.engines.transformers.lens_recorder import LensRecorder, divergence
from langnorm.engines.transformers.unembedding import Unembedding
from langnorm.errors import ModelError, OptionError
from langnorm.interventions.options import Recursion, Steering, Suppression
from langnorm.interventions.plan import Plan, Plans
from tests.reference.reductions import divergence_of, lens_of, probabilities_of, reference_lens
from tests.support.calls import PROMPTS, answer, answers, num_hooks, tokens, wait_until
from tests.support.models import FAMILIES, NUM_LAYERS

ALL = tuple(range(NUM_LAYERS))
WHOLE = Record(norms=False, lens=ALL)
CLOSE = {"initializer_range": 0.12}  # of weights with which some tokens settle before the last layer


def assert_lens(model: Any, request: Request, completion: Completion) -> list[float]:
    """Checks a completion against the oracle, which runs its tokens once more, plainly; returns when they settle."""
    found, layers = completion.reductions.lens, request.lens_layers
    assert (found is not None) == bool(layers)
    if found is None:
        return []
    expected = lens_of(reference_lens(model, request.prompt_ids, completion.token_ids), layers)
    assert found.settling.tolist() == pytest.approx(expected["settling"])
    assert found.agreement.tolist() == pytest.approx(expected["agreement"])
    return expected["settling"]


@pytest.mark.parametrize("most_logits", [2**23, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_those_of_a_plain_pass(family: str, most_logits: int, model_of, engine_of, monkeypatch) -> None:
    """In a padded batch whose sequences read other layers or none, at once or row by row."""
    monkeypatch.setattr(lens_recorder, "_MOST_LOGITS", most_logits)
    model, engine = model_of(family, **CLOSE), engine_of(family, **CLOSE)
    records = [WHOLE, Record(layers=(1,), lens=(1, 2)), Record(layers=(0,)), WHOLE, Record(layers=ALL, lens=(3,))]
    requests = [
        Request(prompt, Sampling(max_tokens=limit), record)
        for prompt, limit, record in zip(PROMPTS, (12, 9, 5, 1, 7), records, strict=True)
    ]
    settling = [assert_lens(model, *pair) for pair in zip(requests, answers(engine, requests), strict=True)]
    assert len({depth for of_one in settling for depth in of_one}) > 1
    assert num_hooks(model) == 0


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_samples_of_one_prompt_have_their_own(family: str, model_of, engine_of) -> None:
    """Which is run once, in pieces; a stop text ends one of the answers."""
    model, engine = model_of(family, **CLOSE), engine_of(family, **CLOSE)
    sampled = Request(PROMPTS[2], Sampling(max_tokens=9, temperature=1.0, n=3, seed=4), WHOLE)
    stopped = replace(sampled, sampling=Sampling(max_tokens=9, temperature=1.0, seed=4, stop=("a",)))
    model.generation_config.prefill_chunk_size = 2
    try:
        responses = engine.generate([sampled, stopped])
    finally:
        model.generation_config.prefill_chunk_size = None
    for request, response in zip((sampled, stopped), responses, strict=True):
        for completion in response.completions:
            assert_lens(model, request, completion)


def test_a_stream_ends_with_them_and_late_arrivals_have_theirs(model_of, engine_of) -> None:
    """Another request comes while it goes on, and a third that has no lens."""
    model, engine = model_of("llama", **CLOSE), engine_of("llama", **CLOSE)
    request = Request(PROMPTS[0], Sampling(max_tokens=40), WHOLE)
    others = [Request(PROMPTS[2], Sampling(max_tokens=9), WHOLE), Request(PROMPTS[1], Sampling(max_tokens=9))]
    stream, found = engine.stream(request), []
    deltas = [next(stream)]
    threads = [threading.Thread(target=lambda one=one: found.append((one, answer(engine, one)))) for one in others]
    for thread in threads:
        thread.start()
    deltas += list(stream)
    for thread in threads:
        thread.join()
    assert deltas[-1].completion is not None
    for one, completion in [(request, deltas[-1].completion), *found]:
        assert_lens(model, one, completion)


def test_the_first_lens_of_an_engine_leaves_the_batch_under_way_alone(engine_of, monkeypatch) -> None:
    """What tries the lens on the model waits for the end of the batch."""
    engine, under_way, seen = engine_of("llama", **CLOSE), threading.Event(), []
    generate, check = BatchGenerator.generate, Unembedding.check

    def generate_noted(*arguments: Any) -> Any:
        under_way.set()
        try:
            return generate(*arguments)
        finally:
            under_way.clear()

    def check_noted(*arguments: Any) -> None:
        seen.append(under_way.is_set())
        check(*arguments)

    monkeypatch.setattr(BatchGenerator, "generate", generate_noted)
    monkeypatch.setattr(Unembedding, "check", check_noted)
    monkeypatch.setattr(engine, "_unembedding", None)
    stream = engine.stream(Request(PROMPTS[0], Sampling(max_tokens=60)))
    deltas = [next(stream)]
    engine.check(Request(PROMPTS[0], Sampling(max_tokens=1), WHOLE))
    assert seen == [False]
    assert [*deltas, *stream][-1].completion is not None


@pytest.mark.parametrize("way", ["agenerate", "astream"])
async def test_the_first_lens_of_an_engine_leaves_the_event_loop_alone(way: str, engine_of, monkeypatch) -> None:
    """What tries the lens on the model waits for it on another thread, and no longer than the request's timeout."""
    engine, is_busy, goes_on = engine_of("llama", **CLOSE), threading.Event(), threading.Event()
    monkeypatch.setattr(engine, "_unembedding", None)

    def keep_busy() -> bool:
        with engine._batcher.paused():
            is_busy.set()
            return goes_on.wait(10)

    async def consume(timeout: float | None) -> Completion | None:
        request = Request(PROMPTS[0], Sampling(max_tokens=3), WHOLE, timeout=timeout)
        if way == "agenerate":
            return (await engine.agenerate([request]))[0].completions[0]
        return [delta async for delta in engine.astream(request)][-1].completion

    busy = asyncio.create_task(asyncio.to_thread(keep_busy))
    await asyncio.to_thread(is_busy.wait, 10)
    waiting = asyncio.create_task(consume(None))
    with pytest.raises(TimeoutError, match=r"timeout=0\.1"):
        await consume(0.1)
    goes_on.set()

    assert await busy, "the event loop stood still"
    completion = await waiting
    assert completion is not None
    assert completion.reductions.lens is not None


def test_others_that_come_at_once_begin_anew_together(model_of, engine_of) -> None:
    """What was recorded of a batch that is run again is forgotten."""
    model, engine = model_of("llama", **CLOSE), engine_of("llama", **CLOSE)
    requests = [Request(prompt, Sampling(max_tokens=30), WHOLE) for prompt in PROMPTS]
    found: dict[int, Completion] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: answer(engine, requests[i])}))
        for i in range(len(requests))
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(found) == len(requests))
    for index, completion in found.items():
        assert_lens(model, requests[index], completion)


@pytest.mark.parametrize(
    "plans",
    [
        Plans(suppression=Plan(Suppression(), (1, 3), (0.0, 0.0))),
        Plans(recursion=Plan(Recursion(max_extra=1), (2,), (0.0,))),
        Plans(steering=Plan(Steering(beta=0.5), (1, 2), (0.0, 0.0))),
    ],
    ids=["suppression", "recursion", "steering"],
)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_interventions_are_seen(family: str, plans: Plans, model_of, engine_of) -> None:
    """The states that flow on are read: those that the same answer records."""
    record = Record(layers=ALL, states=True, lens=ALL)
    request = Request(PROMPTS[0], Sampling(max_tokens=9), record, plans=plans)
    completion = answer(engine_of(family, **CLOSE), request)
    found, states = completion.reductions.lens, completion.states
    assert found is not None
    assert states is not None
    expected = lens_of(probabilities_of(model_of(family, **CLOSE), states.double()).tolist(), ALL)
    # The first token follows from the prompt, whose states are not among those of the answer.
    assert found.settling[1:].tolist() == pytest.approx(expected["settling"])
    assert found.agreement[1:].tolist() == pytest.approx(expected["agreement"])


def test_tokens_stay_the_same(engine_of) -> None:
    """Whether they are looked at or not; without a lens nothing is prepared."""
    engine = engine_of("gemma2")
    plain = [Request(prompt, Sampling(max_tokens=9)) for prompt in PROMPTS]
    assert tokens(engine, plain) == tokens(engine, [replace(request, record=WHOLE) for request in plain])
    assert not LensRecorder([(), ()], NUM_LAYERS, None).is_needed
    assert LensRecorder([(), (3,)], NUM_LAYERS, None).lens(1, 0).settling.shape == (0,)


@pytest.mark.parametrize(
    ("family", "scale"),
    [("CohereConfig", {"logit_scale": 0.3}), ("GraniteConfig", {"logits_scaling": 4.0})],
)
def test_scales_of_logits_are_seen(family: str, scale: dict[str, float], engine_of) -> None:
    """Cohere multiplies them, Granite divides them."""
    config = getattr(transformers, family)(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **CLOSE,
        **scale,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    request = Request((5, 6, 7), Sampling(max_tokens=8), WHOLE)
    assert_lens(model, request, answer(TransformersEngine(model, engine_of("llama").tokenizer), request))


def test_half_precision_is_close(engine_of) -> None:
    """Numbers are finite and in their range."""
    found = answer(engine_of("llama", dtype=torch.bfloat16), Request(PROMPTS[0], Sampling(max_tokens=9), WHOLE))
    lens = found.reductions.lens
    assert lens is not None
    assert set(lens.settling.tolist()) <= {0.25, 0.5, 0.75, 1.0}
    assert set(lens.agreement.tolist()) <= {0.25, 0.5, 0.75, 1.0}  # the last layer agrees with itself


@pytest.mark.parametrize("seed", range(5))
def test_divergences_are_those_of_the_definition(seed: int) -> None:
    """Of distributions with tokens that have no chance, too."""
    drawn = 3 * torch.randn(2, 2, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn[0, 0, :9] = -torch.inf
    first, second = drawn.log_softmax(dim=-1)
    found = divergence(first.clamp(min=-9999), second.clamp(min=-9999))
    expected = [divergence_of(p, q) for p, q in zip(first.exp().tolist(), second.exp().tolist(), strict=True)]
    assert found.tolist() == pytest.approx(expected)


def test_a_model_that_does_something_else_is_refused(model_of, engine_of) -> None:
    """Before anything is generated, with the reason; without a lens it runs."""
    tokenizer, request = engine_of("llama").tokenizer, Request(PROMPTS[0], Sampling(max_tokens=3), WHOLE)
    odd = copy.deepcopy(model_of("llama"))
    odd.forward = _doubled(odd.forward)
    engine = TransformersEngine(odd, tokenizer)
    with pytest.raises(ModelError, match="LlamaForCausalLM.*its logits are not those.*Leave `lens` out"):
        engine.generate([request])
    assert len(answer(engine, replace(request, record=None)).token_ids) == 3
    for in_size, out_size in ((3, 300), (64, 299)):
        other = copy.deepcopy(model_of("llama"))
        other.get_output_embeddings = lambda sizes=(in_size, out_size): torch.nn.Linear(*sizes)
        with pytest.raises(ModelError, match="its logits are not those"):
            TransformersEngine(other, tokenizer).generate([request])
    headless = copy.deepcopy(model_of("llama"))
    headless.get_output_embeddings = lambda: None
    with pytest.raises(ModelError, match="names no output embeddings"):
        TransformersEngine(headless, tokenizer).generate([request])


def _doubled(forward: Any) -> Any:
    def doubled(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = 2 * output.logits
        return output

    return doubled


def test_layers_outside_the_model_are_refused(engine_of) -> None:
    """By the engine; layers that are none, by the record."""
    with pytest.raises(OptionError, match="Layer `4` is outside this model"):
        engine_of("llama").generate([Request(PROMPTS[0], Sampling(max_tokens=3), Record(norms=False, lens=(4,)))])
    with pytest.raises(OptionError, match="not an index"):
        Record(norms=False, lens=(True,))

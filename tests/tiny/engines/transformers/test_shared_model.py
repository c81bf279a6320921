"""A model may have other users beside an engine: neither disturbs the other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from langnorm.engines.requests import Record
from langnorm.engines.transformers.decoder_layers import find_decoder_layers
from langnorm.engines.transformers.engine import TransformersEngine
from tests.support.calls import PROMPTS, answer, ask, num_hooks, plain_tokens, wait_until
from tests.support.interventions import RECURSIONS, STEERING, SUPPRESSIONS, request_of, thresholds
from tests.support.models import NUM_LAYERS

pytestmark = pytest.mark.timeout(120)

ALL = tuple(range(NUM_LAYERS))
INTERVENTIONS = {"recursion": RECURSIONS["paper"], "steering": STEERING, "suppression": SUPPRESSIONS["high"]}


@pytest.fixture
def model(model_of):
    """Returns a model that nobody else uses and that ends no answer by itself."""
    return model_of("qwen3", seed=61, eos_token_id=10**6)


@pytest.fixture
def engine(model, tokenizer) -> TransformersEngine:
    """Returns an engine over it."""
    return TransformersEngine(model, tokenizer)


@contextmanager
def a_generation_inside_each_pass(model, prompt, results):
    """Runs `model.generate` on another thread in the middle of each pass of the engine's worker."""

    def generate(_module, _inputs, _output) -> None:
        if threading.current_thread().name.startswith("langnorm"):
            thread = threading.Thread(target=lambda: results.append(plain_tokens(model, prompt, max_new_tokens=3)))
            thread.start()
            thread.join()

    handle = find_decoder_layers(model)[1].register_forward_hook(generate)
    try:
        yield
    finally:
        handle.remove()


def request_for(kind: str, engine: TransformersEngine):
    """Returns a request whose answer depends on hooks."""
    if kind == "norms":
        return ask(PROMPTS[0], layers=ALL, max_tokens=12)
    if kind == "states":
        return replace(ask(PROMPTS[0], max_tokens=12), record=Record(layers=ALL, states=True, prompt=True))
    return request_of(PROMPTS[0], thresholds(engine, PROMPTS[0]), INTERVENTIONS[kind], num_tokens=12)


@pytest.mark.parametrize("kind", ["norms", "states", *INTERVENTIONS])
def test_passes_of_others_are_not_seen(kind, engine, model) -> None:
    """What the user's own `generate` runs meanwhile is neither recorded nor acted on, and its tokens are its own."""
    request = request_for(kind, engine)
    alone = answer(engine, request)
    theirs_alone, theirs = plain_tokens(model, PROMPTS[2], max_new_tokens=3), []

    with a_generation_inside_each_pass(model, PROMPTS[2], theirs):
        beside = answer(engine, request)

    assert beside.token_ids == alone.token_ids
    assert beside.norms == alone.norms
    assert beside.prompt_norms == alone.prompt_norms
    assert beside.interventions == alone.interventions
    if alone.states is not None:
        assert beside.states.equal(alone.states)
        assert beside.prompt_states.equal(alone.prompt_states)
    assert len(theirs) >= 12
    assert all(tokens == theirs_alone for tokens in theirs)


def test_others_find_the_models_own_generation_configuration(engine, model) -> None:
    """While a batch runs, the model is configured as its owner left it."""
    configured, seen = model.generation_config, []
    handle = model.register_forward_hook(lambda *_: seen.append(model.generation_config))
    try:
        answer(engine, ask(PROMPTS[0], max_tokens=3))
    finally:
        handle.remove()

    assert seen
    assert all(config is configured for config in seen)


def test_engines_over_one_model_take_turns(model, tokenizer) -> None:
    """Two engines of the same weights have batches of their own, one at a time, with their own norms."""
    engines = [TransformersEngine(model, tokenizer) for _ in range(2)]
    requests = [ask(PROMPTS[i], layers=ALL[i:], max_batch_size=1, max_tokens=12 + 3 * i) for i in range(2)]
    alone = [answer(engine, request) for engine, request in zip(engines, requests, strict=True)]
    running, overlaps = set(), []

    def enter(*_) -> None:
        overlaps.extend(running)
        running.add(threading.get_ident())

    handles = [model.register_forward_pre_hook(enter), model.register_forward_hook(lambda *_: running.clear())]
    try:
        with ThreadPoolExecutor(4) as pool:
            completions = list(pool.map(lambda i: answer(engines[i % 2], requests[i % 2]), range(12)))
    finally:
        for handle in handles:
            handle.remove()

    assert completions == alone * 6
    assert not overlaps
    wait_until(lambda: num_hooks(model) == 0)

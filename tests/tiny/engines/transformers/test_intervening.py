"""Recursion, steering and suppression do what their definitions say, in any company and in any cache."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch

from langnorm.engines.requests import Request
from langnorm.errors import ModelError, OptionError
from langnorm.interventions.options import Recursion, Suppression
from tests.support.calls import PROMPTS, answer, answers
from tests.support.interventions import (
    FAMILIES,
    PEAK_STEERING,
    RECURSIONS,
    RUNNING,
    STEERING,
    SUPPRESSIONS,
    assert_as_defined,
    request_of,
    thresholds,
)

if TYPE_CHECKING:
    from langnorm.engines.base import Engine


@pytest.mark.parametrize("name", RECURSIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_recursion_is_as_defined(family: str, name: str, endless_model_of, endless_engine_of) -> None:
    """Tokens, norms and counts are the oracle's, which has no cache."""
    engine, prompt = endless_engine_of(family), PROMPTS[0]
    request = request_of(prompt, thresholds(engine, prompt), RECURSIONS[name])
    expected = assert_as_defined(endless_model_of(family), request, answer(engine, request))
    assert sum(counts["passes"] for counts in expected.recursion.values()) > 5


@pytest.mark.parametrize("family", FAMILIES)
def test_steering_is_as_defined(family: str, endless_model_of, endless_engine_of) -> None:
    """Tokens, norms, and when it pulled how similar states together."""
    engine, prompt = endless_engine_of(family), PROMPTS[0]
    request = request_of(prompt, thresholds(engine, prompt), STEERING)
    assert_as_defined(endless_model_of(family), request, answer(engine, request))


@pytest.mark.parametrize("family", FAMILIES)
def test_steering_at_peaks_is_as_defined(family: str, endless_model_of, endless_engine_of) -> None:
    """Toward earlier ones of the sequence."""
    engine, prompt = endless_engine_of(family), PROMPTS[0]
    request = request_of(prompt, thresholds(engine, prompt), PEAK_STEERING)
    expected = assert_as_defined(endless_model_of(family), request, answer(engine, request))
    assert len(expected.injections) > 5


@pytest.mark.parametrize("steering", [STEERING, PEAK_STEERING], ids=["slack", "peak"])
@pytest.mark.parametrize("family", FAMILIES)
def test_running_thresholds_are_as_defined(family: str, steering, endless_model_of, endless_engine_of) -> None:
    """Of each intervention by itself, and of all three together, each by the norms that reach it."""
    engine, model = endless_engine_of(family), endless_model_of(family)
    options = [replace(one, threshold=RUNNING) for one in (RECURSIONS["several"], steering, SUPPRESSIONS["clamp"])]
    for chosen in (options[:1], options[1:2], options[2:], options):
        request = request_of(PROMPTS[0], None, *chosen, num_tokens=40)
        expected = assert_as_defined(model, request, answer(engine, request))
    assert sum(counts["passes"] for counts in expected.recursion.values()) > 5
    assert sum(expected.suppressed.values()) > 5


@pytest.mark.parametrize("name", SUPPRESSIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_suppression_is_as_defined(family: str, name: str, endless_model_of, endless_engine_of) -> None:
    """Tokens, norms and how many states were shrunk."""
    engine, prompt = endless_engine_of(family), PROMPTS[0]
    request = request_of(prompt, thresholds(engine, prompt), SUPPRESSIONS[name])
    expected = assert_as_defined(endless_model_of(family), request, answer(engine, request))
    assert sum(expected.suppressed.values()) > 2


@pytest.mark.parametrize("family", FAMILIES)
def test_all_three_together_are_as_defined(family: str, endless_model_of, endless_engine_of) -> None:
    """At the same layers, one after the other."""
    engine, prompt = endless_engine_of(family), PROMPTS[0]
    options = (RECURSIONS["several"], STEERING, SUPPRESSIONS["random"])
    request = request_of(prompt, thresholds(engine, prompt), *options)
    assert_as_defined(endless_model_of(family), request, answer(engine, request))


def mixed_requests(engine: Engine, num_tokens: int, **sampling: Any) -> list[Request]:
    """Return requests with and without interventions, with different settings and prompts of unequal length."""
    make = partial(request_of, num_tokens=num_tokens, **sampling)
    taus = [thresholds(engine, prompt) for prompt in PROMPTS]
    return [
        make(PROMPTS[0], taus[0], RECURSIONS["several"]),
        make(PROMPTS[1], None),
        make(PROMPTS[2], taus[2], RECURSIONS["block"], STEERING),
        make(PROMPTS[3], taus[3][:1], SUPPRESSIONS["random"], layers=(2,)),
        make(PROMPTS[4], taus[4], RECURSIONS["paper"], SUPPRESSIONS["clamp"]),
        make(PROMPTS[4], taus[4], STEERING, SUPPRESSIONS["high"]),
        make(PROMPTS[1], None, *(replace(one, threshold=RUNNING) for one in (RECURSIONS["several"], PEAK_STEERING))),
        make(PROMPTS[3], None, replace(SUPPRESSIONS["clamp"], threshold=RUNNING)),
    ]


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0}], ids=["greedy", "sampled"])
def test_a_row_is_the_same_in_any_company(family: str, sampling: dict[str, Any], endless_engine_of) -> None:
    """Tokens, norms and reports of 200 tokens, alone and in one padded batch."""
    engine = endless_engine_of(family)
    requests = mixed_requests(engine, 200, **sampling)
    together = answers(engine, requests)
    for request, completion in zip(requests, together, strict=True):
        alone = answer(engine, request)
        assert len(completion.token_ids) == 200
        assert completion.token_ids == alone.token_ids
        torch.testing.assert_close(torch.tensor(completion.norms), torch.tensor(alone.norms), rtol=1e-4, atol=1e-5)
        assert_alike(completion.interventions, alone.interventions)


def assert_alike(found: Any, expected: Any) -> None:
    """Check that reports are equal but for the rounding of batches of another size."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, item in expected.items():
            assert_alike(found[name], item)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected)


def test_rejected_passes_leave_no_trace(endless_engine_of) -> None:
    """When no new state is taken, everything is as without recursion: the caches have nothing more in them."""
    for family in ("qwen3", "mistral", "gemma2", "gpt2", "mixtral"):
        engine = endless_engine_of(family)
        never = Recursion(growth_eps=1e9, max_extra=3, blowup=1e12)
        plain = answer(engine, request_of(PROMPTS[2], None, num_tokens=40))
        tried = answer(engine, request_of(PROMPTS[2], (1e-6, 1e-6), never, num_tokens=40))
        assert tried.token_ids == plain.token_ids
        torch.testing.assert_close(torch.tensor(tried.norms), torch.tensor(plain.norms))
        assert tried.interventions["recursion"]["layers"]["1"]["passes"] == len(plain.token_ids) - 1


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_a_static_cache_gives_the_same(family: str, endless_model_of, endless_engine_of) -> None:
    """Its keys and values are of full length from the start."""
    engine = endless_engine_of(family)
    request = request_of(PROMPTS[2], thresholds(engine, PROMPTS[2]), RECURSIONS["several"])
    expected = answer(engine, request)
    config = endless_model_of(family).generation_config
    config.cache_implementation = "static"
    try:
        found = answer(engine, request)
    finally:
        config.cache_implementation = None
    assert found.token_ids == expected.token_ids
    assert_alike(found.interventions, expected.interventions)


def test_a_model_that_is_set_to_keep_no_cache_keeps_one(endless_model_of, endless_engine_of) -> None:
    """Else the states of earlier tokens would be computed anew at every step, without what was made of them."""
    engine = endless_engine_of("qwen3")
    request = request_of(PROMPTS[0], thresholds(engine, PROMPTS[0]), RECURSIONS["several"], STEERING)
    expected = answer(engine, request)
    config = endless_model_of("qwen3").generation_config
    config.use_cache = False
    try:
        found = answer(engine, request)
    finally:
        config.use_cache = None
    assert found.token_ids == expected.token_ids
    assert found.interventions == expected.interventions


def test_a_stream_is_what_generate_returns(endless_engine_of) -> None:
    """With the report in its last delta."""
    engine = endless_engine_of("qwen3")
    request = request_of(PROMPTS[0], thresholds(engine, PROMPTS[0]), RECURSIONS["several"], STEERING)
    *_, last = engine.stream(request)
    expected = answer(engine, request)
    assert last.completion.token_ids == expected.token_ids
    assert last.completion.interventions == expected.interventions


def test_samples_differ_and_repeat(endless_engine_of) -> None:
    """Each of `n` samples has its own draws, and the seed repeats them."""
    engine = endless_engine_of("qwen3")
    request = request_of(PROMPTS[0], thresholds(engine, PROMPTS[0]), STEERING, temperature=1.0, n=3)
    first, second = (engine.generate([request])[0].completions for _ in range(2))
    assert [c.token_ids for c in first] == [c.token_ids for c in second]
    assert len({tuple(c.token_ids) for c in first}) == 3


def test_the_prompt_is_recursed_on_request(endless_engine_of) -> None:
    """Then it changes what follows; padding is never counted."""
    engine = endless_engine_of("qwen3")
    taus = tuple(0.5 * tau for tau in thresholds(engine, PROMPTS[0]))
    options = {"threshold": "iqr", "growth_eps": -0.9, "blowup": 9.0, "alpha": 0.5}
    plain, with_prompt = (
        request_of(p, taus, Recursion(only_decode=only, **options), num_tokens=12)
        for p, only in ((PROMPTS[0], True), (PROMPTS[0], False))
    )
    short = request_of(PROMPTS[1], taus, Recursion(only_decode=False, **options), num_tokens=12)
    counts = [
        c.interventions["recursion"]["layers"]["1"]["tokens"] - len(c.token_ids) + 1
        for c in answers(engine, [plain, with_prompt, short])
    ]
    assert counts == [0, len(PROMPTS[0]), len(PROMPTS[1])]
    padded, alone = answers(engine, [with_prompt, short])[1], answer(engine, short)
    assert padded.token_ids == alone.token_ids
    assert_alike(padded.interventions, alone.interventions)


def test_without_thresholds_nothing_is_done(endless_engine_of) -> None:
    """While there is nothing to go by, the report says so."""
    engine = endless_engine_of("qwen3")
    known = (Recursion(threshold="iqr"), replace(STEERING, threshold="iqr"))
    completion = answer(engine, request_of(PROMPTS[0], None, *known))
    assert completion.token_ids == answer(engine, request_of(PROMPTS[0], None)).token_ids
    assert completion.interventions["recursion"]["thresholds"] is None
    assert completion.interventions["recursion"]["layers"] == {}


def test_a_report_tells_of_its_own_request_only(endless_engine_of) -> None:
    """A row without thresholds beside one that acts at the same layers."""
    engine = endless_engine_of("qwen3")
    known = [replace(one, threshold="iqr") for one in (Recursion(), STEERING, SUPPRESSIONS["high"])]
    idle = request_of(PROMPTS[0], None, *known, num_tokens=5)
    taus = thresholds(engine, PROMPTS[1])
    busy = request_of(PROMPTS[1], taus, RECURSIONS["several"], SUPPRESSIONS["high"], num_tokens=5)
    beside = answers(engine, [idle, busy])[0]
    assert beside.interventions == answer(engine, idle).interventions


def test_extra_passes_run_for_active_rows_only(endless_model_of, endless_engine_of) -> None:
    """A batch of which one row recurses runs the layer again for that row alone."""
    engine = endless_engine_of("qwen3")
    layer = endless_model_of("qwen3").model.layers[2]
    seen, real = [], layer.mlp.forward
    layer.mlp.forward = lambda states: seen.append(states.size(0)) or real(states)
    try:
        never = Recursion(growth_eps=1e9, blowup=1e12)
        requests = [request_of(PROMPTS[0], (1e-6,), never, layers=(2,), num_tokens=5)]
        requests += [request_of(prompt, None, num_tokens=5) for prompt in PROMPTS[1:4]]
        answers(engine, requests)
    finally:
        del layer.mlp.forward
    assert seen == [4, *[4, 1] * 4]


def test_a_layer_with_a_recurrent_state_is_refused(endless_engine_of, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is computed, with the layers that can."""
    engine = endless_engine_of("qwen3", seed=31)
    kinds = ["full_attention", "linear_attention", "full_attention", "full_attention"]
    monkeypatch.setattr(engine.model.config, "layer_types", kinds)
    with pytest.raises(ModelError, match=r"Layer `1` .*`linear_attention`.*recurrent state.*\[0, 2, 3\]"):
        answer(engine, request_of(PROMPTS[0], (1.0, 1.0), Recursion()))


def test_a_block_below_the_first_layer_is_refused(endless_engine_of) -> None:
    """There is nothing there to run."""
    with pytest.raises(OptionError, match="reaches below the first layer"):
        answer(endless_engine_of("qwen3"), request_of(PROMPTS[0], (1.0, 1.0), Recursion(block=3)))


def test_no_hook_is_left(endless_model_of, endless_engine_of) -> None:
    """Neither after an answer nor after an error in the middle of one."""
    model, engine = endless_model_of("qwen3"), endless_engine_of("qwen3")
    request = request_of(PROMPTS[0], (1e-6, 1e-6), Recursion(blowup=1e9, growth_eps=-1.0))
    answer(engine, request)
    layer = model.model.layers[2]
    layer.mlp.forward = lambda *_: 1 / 0
    try:
        with pytest.raises(ZeroDivisionError):
            answer(engine, request)
    finally:
        del layer.mlp.forward
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    answer(engine, request)


def test_a_mask_shrinks_the_tokens_that_it_names(endless_model_of, endless_engine_of) -> None:
    """And no others, whatever their norms; past the end of the answer it names none."""
    engine, layers = endless_engine_of("qwen3"), (1, 2)
    mask = Suppression(mode="mask", layers=layers, mask=[[0, 9, 11], [9, 20, 500]])
    request = request_of(PROMPTS[0], None, mask, layers=layers)
    completion = answer(engine, request)
    assert_as_defined(endless_model_of("qwen3"), request, completion)
    assert completion.interventions["suppression"]["acted_on"] == {"1": [0, 9, 11], "2": [9, 20]}

"""What interventions do on vLLM is what the oracle does: tokens, norms and counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from langnorm.errors import OptionError
from langnorm.interventions.options import Recursion
from tests.support.calls import PROMPTS, answer, answers
from tests.support.interventions import (
    LOOPS,
    PEAK_STEERING,
    RECURSIONS,
    RUNNING,
    STEERING,
    SUPPRESSIONS,
    assert_as_defined,
    request_of,
    thresholds,
)
from tests.vllm.conftest import sizes_of

OPTIONS = {**RECURSIONS, "slack": STEERING, "peak": PEAK_STEERING, **SUPPRESSIONS}


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_states_are_changed_as_defined(vllm_of, model_of, option) -> None:
    """By each intervention, for prompts of all lengths at once, some of which are cut into chunks."""
    engine = vllm_of("qwen3")
    requests = [request_of(prompt, thresholds(engine, prompt), option) for prompt in PROMPTS]
    for request, completion in zip(requests, answers(engine, requests), strict=True):
        assert_as_defined(model_of("qwen3", **sizes_of("qwen3")), request, completion)


@pytest.mark.parametrize("option", LOOPS.values(), ids=LOOPS)
def test_blocks_are_looped_as_defined(vllm_of, model_of, option) -> None:
    """Of the answer, at peaks alone, or of the prompt, whose keys and values are those of the first pass."""
    requests = [request_of(prompt, None, option) for prompt in PROMPTS]
    for request, completion in zip(requests, answers(vllm_of("qwen3"), requests), strict=True):
        assert_as_defined(model_of("qwen3", **sizes_of("qwen3")), request, completion)


@pytest.mark.parametrize("family", ["llama", "gemma2", "olmo2"])
def test_other_families(vllm_of, model_of, family) -> None:
    """Layers that take and return other things."""
    engine, prompt = vllm_of(family), PROMPTS[0]
    taus = thresholds(engine, prompt)
    requests = [request_of(prompt, taus, option) for option in (RECURSIONS["several"], PEAK_STEERING)]
    for request, completion in zip(requests, answers(engine, requests), strict=True):
        assert_as_defined(model_of(family, **sizes_of(family)), request, completion)


def test_running_thresholds_are_as_defined(vllm_of, model_of) -> None:
    """Of each sequence by itself, in one pass with others."""
    kinds = (RECURSIONS["several"], STEERING, SUPPRESSIONS["clamp"])
    options = [replace(option, threshold=RUNNING) for option in kinds]
    requests = [request_of(prompt, None, *options, num_tokens=40) for prompt in PROMPTS]
    for request, completion in zip(requests, answers(vllm_of("qwen3"), requests), strict=True):
        assert_as_defined(model_of("qwen3", **sizes_of("qwen3")), request, completion)


def test_each_sequence_has_its_own(vllm_of, model_of) -> None:
    """In one pass with others that have other interventions, or none."""
    engine = vllm_of("qwen3")
    requests = [
        request_of(prompt, thresholds(engine, prompt) if options else None, *options)
        for prompt in PROMPTS[:3]
        for options in ((RECURSIONS["paper"],), (STEERING,), (SUPPRESSIONS["high"],), ())
    ]
    for request, completion in zip(requests, answers(engine, requests), strict=True):
        assert_as_defined(model_of("qwen3", **sizes_of("qwen3")), request, completion)


def test_keys_and_values_of_intervened_answers_are_nobody_elses(vllm_of, model_of) -> None:
    """A prompt that begins with one, blocks long, is run anew: its norms are those of the model itself."""
    engine, prompt = vllm_of("qwen3"), PROMPTS[2]
    request = request_of(prompt, thresholds(engine, prompt), RECURSIONS["several"], num_tokens=160)
    first = answer(engine, request)
    assert first.interventions["recursion"]["extra_layer_passes"] > 0
    following = request_of((*prompt, *first.token_ids), None, num_tokens=20)
    assert_as_defined(model_of("qwen3", **sizes_of("qwen3")), following, answer(engine, following))


def test_what_cannot_be_done_is_refused(vllm_of) -> None:
    """Before anything is computed, with the reason."""
    engine = vllm_of("qwen3")
    with pytest.raises(OptionError, match="reaches below the first layer"):
        engine.check(request_of(PROMPTS[0], None, Recursion(block=3)))
    with pytest.raises(OptionError, match="Layer"):
        engine.check(request_of(PROMPTS[0], None, Recursion(), layers=(9,)))

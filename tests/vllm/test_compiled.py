"""A model that vLLM compiles: into one graph, which notes norms, or into graphs that end at each layer, to act."""

from __future__ import annotations

import os

import pytest

from langnorm.errors import OptionError
from tests.support.calls import PROMPTS, answers
from tests.support.interventions import (
    LOOPS,
    PEAK_STEERING,
    RECURSIONS,
    STEERING,
    SUPPRESSIONS,
    assert_as_defined,
    request_of,
    thresholds,
)
from tests.support.vllm_script import run_script
from tests.vllm.conftest import SMALL, sizes_of

CUT = {"enforce_eager": False, "interventions": True}
OPTIONS = {**RECURSIONS, "slack": STEERING, "peak": PEAK_STEERING, **SUPPRESSIONS}


@pytest.fixture(autouse=True)
def _compiled_in_seconds(monkeypatch) -> None:
    monkeypatch.setenv("VLLM_CPU_CI_ENV", "1")  # traced, and run as it is


def test_states_are_changed_as_defined(vllm_of, model_of) -> None:
    """By each intervention, in one batch with each other and with sequences that have none."""
    engine, model = vllm_of("qwen3", **CUT), model_of("qwen3", **sizes_of("qwen3"))
    requests = [
        request_of(prompt, thresholds(engine, prompt) if options else None, *options)
        for prompt in PROMPTS[2:3]
        for options in ((), *((option,) for option in OPTIONS.values()))
    ]
    for request, completion in zip(requests, answers(engine, requests), strict=True):
        assert_as_defined(model, request, completion)
    loops = [request_of(prompt, None, option) for prompt in PROMPTS[1:2] for option in LOOPS.values()]
    for request, completion in zip(loops, answers(engine, loops), strict=True):
        assert_as_defined(model, request, completion)


def test_another_family(vllm_of, model_of) -> None:
    """Layers that take and return other things."""
    family = "gemma2"
    engine, prompt = vllm_of(family, **CUT), PROMPTS[0]
    options = (RECURSIONS["several"], PEAK_STEERING)
    requests = [
        request_of(prompt, thresholds(engine, prompt), *chosen) for chosen in ((options[0],), (options[1],), ())
    ]
    for request, completion in zip(requests, answers(engine, requests), strict=True):
        assert_as_defined(model_of(family, **sizes_of(family)), request, completion)


def test_layers_that_take_other_tensors_are_not_run_again(vllm_of, model_of) -> None:
    """Such as those of transformers, which vLLM runs; outside of the graph nobody knows these. Others are acted on."""
    model = model_of("olmo2", **sizes_of("olmo2"))
    engine, prompt = vllm_of("olmo2", **CUT), PROMPTS[0]
    with pytest.raises(OptionError, match="known inside its graphs alone; `enforce_eager` does without"):
        engine.check(request_of(prompt, None, RECURSIONS["several"]))
    request = request_of(prompt, thresholds(engine, prompt), PEAK_STEERING)
    (completion,) = answers(engine, [request])
    assert_as_defined(model, request, completion)


@pytest.mark.timeout(600)
@pytest.mark.skipif("TRITON_INTERPRET" not in os.environ, reason="takes minutes: `make test-vllm-v2` runs it")
def test_as_on_gpus(vllm_of, model_of, folder_of, tmp_path) -> None:
    """Compiled in pieces, and at a second start from what the first one has left on disk, where no hook is traced."""
    engine, model = vllm_of("qwen3"), model_of("qwen3", **sizes_of("qwen3"))
    taus = {prompt: thresholds(engine, prompt) for prompt in PROMPTS[:2]}
    acting = [(RECURSIONS["several"],), (PEAK_STEERING,), (LOOPS["decode"],), ()]
    plain, acted_on = (
        [request_of(prompt, taus[prompt] if options else None, *options) for prompt in taus for options in kinds]
        for kinds in ([()], acting)
    )
    jobs = [(SMALL | {"enforce_eager": False}, plain), (SMALL | CUT, acted_on)]
    for is_second in (False, True):
        found = run_script(folder_of("qwen3"), tmp_path, jobs, "as_on_gpus", VLLM_CACHE_ROOT=str(tmp_path))
        counts = [(job.num_pieces, job.num_loaded) for job in found]
        # Pieces are cut at the attention of each of four layers, which is two operations, and between layers.
        assert counts == ([(0, 1)] * 2 if is_second else [(9, 0), (19, 0)])
        for (_, requests), job in zip(jobs, found, strict=True):
            for request, completion in zip(requests, job.completions, strict=True):
                assert_as_defined(model, request, completion)

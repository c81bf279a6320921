"""The damped block loop does what its definition says, in any company and in any cache."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch

from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import ModelError, OptionError
from langnorm.interventions.options import Recursion
from langnorm.interventions.plan import Plan, Plans
from tests.support.calls import PROMPTS, answer, answers
from tests.support.interventions import (
    FAMILIES,
    LOOPS,
    NEVER,
    PEAK_STEERING,
    RECURSIONS,
    RUNNING,
    SUPPRESSIONS,
    assert_as_defined,
    request_of,
    thresholds,
)

if TYPE_CHECKING:
    from langnorm.engines.base import Engine
    from langnorm.engines.requests import Request

LONG = (*PROMPTS[2], *PROMPTS[4], *PROMPTS[2], *PROMPTS[0])
"""Longer than the shortest beginning that is remembered."""


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loop_is_as_defined(family: str, name: str, endless_model_of, endless_engine_of) -> None:
    """Tokens, norms, counts and how far states moved are the oracle's, which has no cache."""
    engine = endless_engine_of(family)
    request = request_of(PROMPTS[2], None, LOOPS[name])
    completion = answer(engine, request)
    assert_as_defined(endless_model_of(family), request, completion)
    assert completion.norms != answer(engine, request_of(PROMPTS[2], None)).norms
    assert completion.interventions["recursion"]["warning"] is None


def mixed_requests(engine: Engine, num_tokens: int = 30) -> list[Request]:
    """Return requests with all kinds of loops, with other interventions and with none, of prompts of unequal length."""
    make = partial(request_of, num_tokens=num_tokens)
    taus = thresholds(engine, PROMPTS[3])
    early = Recursion(mode="block", layers=(0, 1), num_loops=3, anchor=0.3)
    later = [replace(one, threshold=RUNNING) for one in (PEAK_STEERING, SUPPRESSIONS["clamp"])]
    return [
        make(PROMPTS[0], None, LOOPS["decode"]),
        make(PROMPTS[1], None),
        make(PROMPTS[2], None, LOOPS["prefill"]),
        make(PROMPTS[0], None, LOOPS["prefill"]),
        make(PROMPTS[4], None, LOOPS["peaks"]),
        make(PROMPTS[1], None, LOOPS["one layer"], *later, layers=(2,)),
        make(PROMPTS[3], taus, RECURSIONS["block"]),
        make(PROMPTS[4], None, early, *later),
        make(PROMPTS[1], taus, RECURSIONS["several"], PEAK_STEERING),
    ]


@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma2"])
def test_a_mixed_batch_is_as_defined(family: str, endless_model_of, endless_engine_of) -> None:
    """Each row, padded or not, is what the oracle makes of it alone; the row without interventions too."""
    engine, model = endless_engine_of(family), endless_model_of(family)
    requests = mixed_requests(engine)
    for request, completion in zip(requests, answers(engine, requests), strict=True):
        assert_as_defined(model, request, completion)


@pytest.mark.parametrize("family", ["qwen3", "mistral", "gemma2", "gpt2", "mixtral"])
def test_passes_that_are_not_taken_leave_no_trace(family: str, endless_engine_of) -> None:
    """Where the first pass has all the weight, or is the only one, all is as without: caches have nothing more."""
    engine = endless_engine_of(family)
    plain = answer(engine, request_of(PROMPTS[2], None, num_tokens=40))
    for on in ("decode", "prefill"):
        for options in ({"num_loops": 3, "anchor": 1.0}, {"num_loops": 1, "anchor": 0.0}, {"num_loops": 1}):
            loop = Recursion(mode="block", layers=(0, 1, 2), on=on, **options)
            tried = answer(engine, request_of(PROMPTS[2], None, loop, num_tokens=40))
            assert tried.token_ids == plain.token_ids
            torch.testing.assert_close(torch.tensor(tried.norms), torch.tensor(plain.norms))
            counts = tried.interventions["recursion"]["layers"]["2"]
            assert counts["triggered"] == counts["tokens"] == (39 if on == "decode" else len(PROMPTS[2]))
            assert counts["passes"] == counts["tokens"] * (options["num_loops"] - 1)
            assert tried.interventions["recursion"]["moved"] == {"mean": 0.0, "max": 0.0}


@pytest.mark.parametrize("name", ["decode", "prefill"])
@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_other_ways_of_running_give_the_same(family: str, name: str, endless_model_of, endless_engine_of) -> None:
    """A static cache, and a prompt that is run in chunks."""
    engine = endless_engine_of(family)
    request = request_of(PROMPTS[2], None, LOOPS[name])
    expected, config = answer(engine, request), endless_model_of(family).generation_config
    for option, value in (("cache_implementation", "static"), ("prefill_chunk_size", 5)):
        setattr(config, option, value)
        try:
            found = answer(engine, request)
        finally:
            setattr(config, option, None)
        assert found.token_ids == expected.token_ids
        torch.testing.assert_close(torch.tensor(found.norms), torch.tensor(expected.norms), rtol=1e-4, atol=1e-5)
        assert found.interventions["recursion"]["layers"] == expected.interventions["recursion"]["layers"]


def test_half_precision_stays_half_precision(endless_model_of, engine_of) -> None:
    """States that were moved have the dtype of the model."""
    engine = engine_of("llama", seed=7, eos_token_id=NEVER)
    engine.model.to(torch.bfloat16)
    for name in LOOPS:
        completion = answer(engine, request_of(PROMPTS[0], None, LOOPS[name], num_tokens=20))
        assert completion.interventions["recursion"]["moved"]["mean"] > 0.01


@pytest.mark.parametrize("name", LOOPS)
def test_caches_of_others_never_have_what_was_moved(name: str, endless_model_of, tokenizer) -> None:
    """A plain request after a loop, and a loop after a plain request, are what they are in an engine of their own."""

    def new_engine() -> Engine:
        return TransformersEngine(endless_model_of("qwen3"), tokenizer)

    looped, plain = request_of(LONG, None, LOOPS[name]), request_of(LONG, None)
    alone = answer(new_engine(), looped), answer(new_engine(), plain)
    for order in ((looped, plain, looped), (plain, looped, plain)):
        engine = new_engine()
        for request in order:
            found, expected = answer(engine, request), alone[request is plain]
            assert found.token_ids == expected.token_ids
            torch.testing.assert_close(torch.tensor(found.norms), torch.tensor(expected.norms), rtol=1e-4, atol=1e-5)
            if name == "prefill" and request is looped:
                assert found.prefix_hit is None


def test_samples_of_a_prompt_each_have_their_loop(endless_engine_of) -> None:
    """In the prompt, which is then run for each, and in the answer; the seed repeats them."""
    engine = endless_engine_of("qwen3")
    for name in ("prefill", "peaks"):
        request = request_of(PROMPTS[0], None, LOOPS[name], temperature=1.0, n=3)
        first, second = (engine.generate([request])[0].completions for _ in range(2))
        assert [c.token_ids for c in first] == [c.token_ids for c in second]
        assert len({tuple(c.token_ids) for c in first}) == 3
        assert [c.interventions for c in first] == [c.interventions for c in second]


def test_a_stream_is_what_generate_returns(endless_engine_of) -> None:
    """With the report in its last delta."""
    engine = endless_engine_of("qwen3")
    request = request_of(PROMPTS[0], None, LOOPS["peaks"])
    *_, last = engine.stream(request)
    expected = answer(engine, request)
    assert last.completion.token_ids == expected.token_ids
    assert last.completion.interventions == expected.interventions


def test_the_block_runs_again_for_its_rows_only(endless_model_of, endless_engine_of) -> None:
    """At a peak for the row whose peak it is, in a prompt not at all while the answer is written."""
    engine = endless_engine_of("qwen3")
    layer = endless_model_of("qwen3").model.layers[1]
    seen, real = [], layer.mlp.forward
    layer.mlp.forward = lambda states: seen.append(tuple(states.shape[:2])) or real(states)
    high = Recursion(mode="block", layers=(1,), on="peaks", threshold=1e-6)
    in_prompt = Recursion(mode="block", layers=(1,), on="prefill", num_loops=3)
    peaks = replace(request_of(PROMPTS[0], None, num_tokens=3), plans=Plans(Plan(high, (1,), (1e-6,))))
    try:
        answers(engine, [peaks, *(request_of(prompt, None, num_tokens=3) for prompt in PROMPTS[1:4])])
        assert seen == [(4, 24), *[(4, 1), (1, 1)] * 2]
        seen.clear()
        answers(engine, [request_of(PROMPTS[0], None, in_prompt, num_tokens=3), request_of(PROMPTS[1], None)])
        assert seen[:5] == [(2, 7), (1, 7), (1, 7), (2, 1), (2, 1)]
    finally:
        del layer.mlp.forward


def test_an_answer_of_one_token_has_nothing_to_loop(endless_engine_of) -> None:
    """It is never run, and the report says so."""
    report = answer(endless_engine_of("qwen3"), request_of(PROMPTS[0], None, LOOPS["decode"], num_tokens=1))
    recursion = report.interventions["recursion"]
    assert recursion["warning"] == "`recursion` did nothing on 0 tokens: no token of the answer was run."
    assert recursion["moved"] == {"mean": None, "max": None}


def test_what_cannot_be_looped_is_refused(endless_engine_of, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is computed: a layer outside the model, and one with a recurrent state inside the block."""
    engine = endless_engine_of("qwen3", seed=31)
    outside = Recursion(mode="block", layers=(3, 4))
    with pytest.raises(OptionError, match="Layer `4` is outside this model"):
        answer(engine, request_of(PROMPTS[0], None, outside))
    kinds = ["full_attention", "linear_attention", "full_attention", "full_attention"]
    monkeypatch.setattr(engine.model.config, "layer_types", kinds)
    with pytest.raises(ModelError, match=r"Layer `1` .*`linear_attention`.*recurrent state.*\[0, 2, 3\]"):
        answer(engine, request_of(PROMPTS[0], None, LOOPS["prefill"]))


def test_no_hook_is_left(endless_model_of, endless_engine_of) -> None:
    """Neither after an answer nor after an error in the middle of one."""
    model, engine = endless_model_of("qwen3"), endless_engine_of("qwen3")
    request = request_of(PROMPTS[0], None, LOOPS["prefill"])
    expected = answer(engine, request)
    layer = model.model.layers[2]
    layer.mlp.forward = lambda *_: 1 / 0
    try:
        with pytest.raises(ZeroDivisionError):
            answer(engine, request)
    finally:
        del layer.mlp.forward
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert answer(engine, request).token_ids == expected.token_ids

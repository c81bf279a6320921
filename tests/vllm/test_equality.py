"""What vLLM answers and shows is what transformers answers and shows, of the same weights in float32."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Completion, Partial, Record, Request
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import OptionError, PromptError
from tests.support.calls import PROMPTS, answer, answers
from tests.support.grammars import PERSON, grammar_with
from tests.vllm.conftest import QUESTIONS, chat_ids, sizes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langnorm.reductions import Reductions

NORMS = Record(layers=(0, 8, 11))


def assert_equal(one: Completion, other: Completion) -> None:
    """Compares tokens, texts, norms and log-probabilities."""
    assert one.token_ids == other.token_ids
    assert (one.pieces, one.finish_reason) == (other.pieces, other.finish_reason)
    for name in ("norms", "prompt_norms"):
        rows, expected = torch.tensor(getattr(one, name)), torch.tensor(getattr(other, name))
        torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-4)
    for here, there in zip(one.logprobs, other.logprobs, strict=True):
        assert here.logprob == pytest.approx(there.logprob, abs=1e-3)
        assert len(here.top) == len(there.top)
        assert [pair[1] for pair in here.top] == pytest.approx([pair[1] for pair in there.top], abs=1e-3)


def test_every_kind_of_request(abacus, abacus_engine) -> None:
    """Alone, and all at once: tokens, also drawn ones and those held to a grammar; norms; log-probabilities; ends."""
    first, second, third = (chat_ids(abacus, question) for question in QUESTIONS)
    thinking = grammar_with(abacus.tokenizer, schema=PERSON, may_think=True)
    requests = [
        Request(first, Sampling(max_tokens=60), Record(layers=tuple(range(12)), prompt=True), top_logprobs=3),
        Request(first, Sampling(max_tokens=60), NORMS, top_logprobs=0),
        Request(first, Sampling(max_tokens=40, n=3), NORMS),
        Request(second, Sampling(max_tokens=40, repetition_penalty=1.3), NORMS),
        Request(first, Sampling(temperature=2.5, seed=5, n=3, max_tokens=40), NORMS, top_logprobs=1),
        Request(second, Sampling(temperature=1.1, top_k=20, top_p=0.9, seed=1, max_tokens=40)),
        Request(second, Sampling(temperature=3.0, min_p=0.1, repetition_penalty=1.3, seed=2, max_tokens=40), NORMS),
        Request(second, Sampling(max_tokens=40, stop=("432",)), NORMS),
        Request(third, Sampling(max_tokens=90), NORMS, grammar=grammar_with(abacus.tokenizer, schema=PERSON)),
        Request(third, Sampling(max_tokens=90, temperature=1.5, seed=3), grammar=thinking),
        Request(second, Sampling(max_tokens=40)),
        Request(third, Sampling(max_tokens=1), NORMS),
        Request(third, Sampling(max_tokens=2), Record(layers=(3,), prompt=True)),
    ]
    expected = [abacus_engine.generate([request])[0] for request in requests]
    alone = [abacus.generate([request])[0] for request in requests]
    together = abacus.generate(requests)
    for right, *ours in zip(expected, alone, together, strict=True):
        for response in ours:
            for one, other in zip(response.completions, right.completions, strict=True):
                assert_equal(one, other)


@pytest.mark.parametrize(
    ("family", "engine_kwargs"),
    [
        ("qwen3", {}),
        ("llama", {}),
        ("gemma2", {}),
        ("olmo2", {}),
        ("gpt2", {}),
        ("mistral", {"model_impl": "transformers"}),
    ],
    ids=["qwen3", "llama", "gemma2", "olmo2", "gpt2", "of transformers"],
)
def test_families(vllm_of, model_of, tokenizer, family, engine_kwargs) -> None:
    """Of random weights, whose answers look like noise, so that a state of the wrong token would show."""
    plain = TransformersEngine(model_of(family, **sizes_of(family)), tokenizer)
    requests = [
        Request(prompt, Sampling(max_tokens=20), Record(layers=(0, 1, 2, 3), prompt=has_prompt))
        for prompt in PROMPTS
        for has_prompt in (True, False)
    ]
    expected = answers(plain, requests)  # before vLLM, which may change classes of transformers
    engine = vllm_of(family, **engine_kwargs)
    for completion, right in zip(answers(engine, requests), expected, strict=True):
        assert_equal(completion, right)


@pytest.mark.parametrize("family", ["llama", "olmo2"], ids=["of vLLM", "of transformers"])
def test_a_model_starts_whatever_the_memory_held(vllm_of, monkeypatch, family) -> None:
    """Attention in the trial of its layers gives what was there before, which may be no number."""
    from vllm.forward_context import get_forward_context
    from vllm.model_executor.layers.attention import Attention

    forward, num_trials = Attention.forward, 0

    def garbage(*args: object, **kwargs: object) -> torch.Tensor:
        nonlocal num_trials
        is_trial = get_forward_context().attn_metadata is None
        num_trials += is_trial
        output = forward(*args, **kwargs)
        return torch.full_like(output, torch.nan) if is_trial else output

    monkeypatch.setattr(Attention, "forward", garbage)
    assert vllm_of(family, max_model_len=256).num_layers == 4
    assert num_trials > 0


def test_norms_after_preemption(vllm_of, model_of, tokenizer) -> None:
    """Where memory is short, sequences are sent back and run again: each row is still that of its token."""
    engine = vllm_of("qwen3", num_gpu_blocks_override=6)
    plain = TransformersEngine(model_of("qwen3", **sizes_of("qwen3")), tokenizer)
    requests = [
        Request((*PROMPTS[i % 5], i, *PROMPTS[2]), Sampling(max_tokens=150), Record(layers=(0, 3))) for i in range(6)
    ]
    for completion, right in zip(answers(engine, requests), answers(plain, requests), strict=True):
        assert_equal(completion, right)


def test_norms_of_a_prompt_that_was_run_before(vllm_of, model_of, tokenizer) -> None:
    """The beginning of the prompt is found again, and the norms of all of its tokens are still there if asked for."""
    engine, plain = vllm_of("qwen3"), TransformersEngine(model_of("qwen3", **sizes_of("qwen3")), tokenizer)
    prompt = tuple(token % 900 for token in range(5, 5 + 7 * 300, 7))
    for has_prompt in (False, True, False):
        request = Request(prompt, Sampling(max_tokens=12), Record(layers=(1, 3), prompt=has_prompt))
        assert_equal(answer(engine, request), answer(plain, request))


def test_reductions_of_distributions(abacus, abacus_engine) -> None:
    """In a batch and alone; a pruner sees them on the way, with norms and log-probabilities."""
    first, second, _ = (chat_ids(abacus, question) for question in QUESTIONS)
    whole = Record(layers=(0, 9, 11), distribution=True)
    seen: list[Partial] = []

    class Watcher:
        every = 6

        def stopped(self, samples: Sequence[Partial]) -> list[int]:
            seen.extend(samples)
            return [1] if len(samples) > 1 and len(samples[1].token_ids) >= 12 else []

    requests = [
        Request(first, Sampling(max_tokens=30), whole, top_logprobs=1),
        Request(second, Sampling(temperature=2.5, seed=5, n=3, max_tokens=20), whole, pruner=Watcher()),
        Request(second, Sampling(max_tokens=1), whole),
    ]
    expected = abacus_engine.generate(requests)
    seen_there = seen.copy()
    seen.clear()
    for found in (abacus.generate(requests), [abacus.generate([request])[0] for request in requests]):
        for response, right in zip(found, expected, strict=True):
            for one, other in zip(response.completions, right.completions, strict=True):
                if one.finish_reason == "pruned":  # it may have been ahead of the others
                    assert other.finish_reason == "pruned"
                    assert one.token_ids[:12] == other.token_ids[:12]
                    continue
                assert_equal(one, other)
                assert_equal_distributions(one.reductions, other.reductions)
        assert found[1].completions[1].finish_reason == "pruned"
    by_tokens = {tuple(partial.token_ids): partial for partial in seen_there}
    assert len(seen) >= len(by_tokens) >= 4
    for partial in seen:
        right = by_tokens[tuple(partial.token_ids)]
        torch.testing.assert_close(torch.tensor(partial.norms), torch.tensor(right.norms), rtol=1e-4, atol=1e-4)
        if partial.is_running:
            assert_equal_distributions(partial.reductions, right.reductions)


def assert_equal_distributions(one: Reductions, other: Reductions) -> None:
    """Compares all numbers of the reductions."""
    for field in fields(other.distribution):
        found, right = getattr(one.distribution, field.name), getattr(other.distribution, field.name)
        np.testing.assert_allclose(found, right, rtol=2e-3, atol=2e-3)


def test_calls_from_many_threads(abacus, abacus_engine) -> None:
    """Each gets its own answer and norms."""
    prompts = [chat_ids(abacus, f"Calculate {number} + 385.") for number in range(40, 52)]
    requests = [Request(prompt, Sampling(max_tokens=40), NORMS) for prompt in prompts]
    expected = answers(abacus_engine, requests)
    with ThreadPoolExecutor(6) as pool:
        for completion, right in zip(pool.map(lambda one: answer(abacus, one), requests), expected, strict=True):
            assert_equal(completion, right)


def test_prompts_that_cannot_be_run_are_refused(abacus) -> None:
    """Too long, empty, or with a token that the model does not know."""
    for prompt, words in (((), "empty"), ((5,) * 2048, "leaves no room"), ((5, 99_999), "token id `99999`")):
        with pytest.raises(PromptError, match=words):
            abacus.generate([Request(prompt, Sampling())])


def test_records_that_cannot_be_kept_are_refused(abacus) -> None:
    """By their name."""
    with pytest.raises(OptionError, match="cannot record hidden states"):
        abacus.generate([Request((5, 6), Sampling(), Record(layers=(1,), states=True))])

"""What llama.cpp answers and shows is what transformers answers and shows, of the same weights in float32."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Completion, Partial, Record, Request
from langnorm.errors import OptionError, PromptError
from langnorm.interventions.options import Recursion
from tests.support.calls import PROMPTS, answer, answers
from tests.support.grammars import PERSON, grammar_with
from tests.support.interventions import (
    PEAK_STEERING,
    RUNNING,
    STEERING,
    SUPPRESSIONS,
    assert_as_defined,
    request_of,
    thresholds,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langnorm.engines.base import Engine
    from langnorm.reductions import Reductions

QUESTIONS = (
    "Mia has 12 boxes with 14 pens each. How many pens does she have?",
    "Calculate 47 + 385.",
    "What is the weather in Oslo?",
)
ALL = Record(layers=tuple(range(12)), states=True, prompt=True)
NORMS = Record(layers=(8, 9, 11))


def chat_ids(engine: Engine, question: str) -> tuple[int, ...]:
    """Returns the prompt of a question."""
    turns = [{"role": "user", "content": question}]
    return tuple(engine.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))


def assert_equal(one: Completion, other: Completion) -> None:
    """Compares tokens, texts, norms, states and log-probabilities."""
    assert one.token_ids == other.token_ids
    assert (one.pieces, one.finish_reason) == (other.pieces, other.finish_reason)
    for name in ("norms", "prompt_norms"):
        rows, expected = torch.tensor(getattr(one, name)), torch.tensor(getattr(other, name))
        torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-4)
    for name in ("states", "prompt_states"):
        if (states := getattr(one, name)) is not None:
            torch.testing.assert_close(states, getattr(other, name), rtol=1e-3, atol=1e-2)
        else:
            assert getattr(other, name) is None
    for here, there in zip(one.logprobs, other.logprobs, strict=True):
        assert here.logprob == pytest.approx(there.logprob, abs=1e-3)
        assert here.top[0][0] == there.top[0][0]


def requests_of(engine: Engine) -> Sequence[Request]:
    """Returns requests of every kind."""
    first, second, third = (chat_ids(engine, question) for question in QUESTIONS)
    person = grammar_with(engine.tokenizer, schema=PERSON)
    return [
        Request(first, Sampling(max_tokens=60), ALL, top_logprobs=2),
        Request(first, Sampling(max_tokens=60), NORMS),
        Request(first, Sampling(temperature=0.9, seed=5, n=3, max_tokens=40), NORMS, top_logprobs=1),
        Request(second, Sampling(temperature=1.1, top_k=20, top_p=0.9, seed=1, max_tokens=40)),
        Request(second, Sampling(temperature=0.7, min_p=0.1, repetition_penalty=1.3, seed=2, max_tokens=40), NORMS),
        Request(second, Sampling(max_tokens=40, stop=("432",)), NORMS),
        Request(third, Sampling(max_tokens=90), NORMS, grammar=person),
        Request(third, Sampling(max_tokens=1), ALL),
    ]


def test_a_stream_has_the_norms_of_its_tokens(abacus, abacus_engine) -> None:
    """As they become known, the same as at the end; all but those of the last tokens come before it."""
    for engine in (abacus, abacus_engine):
        prompt = engine.tokenizer(QUESTIONS[1])["input_ids"]
        record = Record(layers=(3, 9), live=True)
        *deltas, last = engine.stream(Request(tuple(prompt), Sampling(max_tokens=20), record))
        live = [row for delta in deltas for row in delta.norms]
        assert last.completion is not None
        assert len(live) > len(last.completion.norms) - 4
        assert [row for _, row in live] == last.completion.norms[: len(live)]
        assert [token_id for token_id, _ in live] == last.completion.token_ids[: len(live)]


def test_every_kind_of_request(abacus, abacus_engine) -> None:
    """Alone, and all at once: the same tokens for the same seed, the same norms, states and log-probabilities."""
    requests = requests_of(abacus)
    expected = [abacus_engine.generate([request])[0] for request in requests]
    alone = [abacus.generate([request])[0] for request in requests]
    together = abacus.generate(requests)
    for right, *ours in zip(expected, alone, together, strict=True):
        for response in ours:
            for one, other in zip(response.completions, right.completions, strict=True):
                assert_equal(one, other)


def test_prompts_of_random_weights(tiny, engine_of) -> None:
    """Of a model whose answers look like noise, so that a state of the wrong token would show."""
    requests = [Request(prompt, Sampling(max_tokens=20), Record(layers=(0, 1, 2, 3))) for prompt in PROMPTS]
    expected = answers(engine_of("qwen2"), requests)
    for completion, right in zip(answers(tiny, requests), expected, strict=True):
        assert_equal(completion, right)


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
@pytest.mark.parametrize(
    "option", [STEERING, PEAK_STEERING, *SUPPRESSIONS.values()], ids=["steering", "peak", *SUPPRESSIONS]
)
def test_states_are_changed_as_defined(tiny, model_of, prompt, option) -> None:
    """What is written in the callback flows on: tokens, norms and reports are those of the oracle."""
    request = request_of(prompt, thresholds(tiny, prompt), option)
    assert_as_defined(model_of("qwen2"), request, answer(tiny, request))


@pytest.mark.parametrize("steering", [STEERING, PEAK_STEERING], ids=["slack", "peak"])
def test_running_thresholds_are_as_defined(tiny, model_of, steering) -> None:
    """Of each sequence by itself, in one pass with others."""
    options = [replace(one, threshold=RUNNING) for one in (steering, SUPPRESSIONS["clamp"])]
    requests = [request_of(prompt, None, *options, num_tokens=40) for prompt in PROMPTS]
    for request, completion in zip(requests, answers(tiny, requests), strict=True):
        assert_as_defined(model_of("qwen2"), request, completion)


def test_rows_of_a_pass_are_changed_each_by_its_own_request(tiny, model_of) -> None:
    """Together with others, with and without interventions, each gives what is defined for it."""
    requests = [
        request_of(prompt, thresholds(tiny, prompt) if has_taus else None, *options)
        for prompt in PROMPTS
        for has_taus, options in ((True, (STEERING,)), (True, (SUPPRESSIONS["high"],)), (False, ()))
    ]
    for request, completion in zip(requests, answers(tiny, requests), strict=True):
        assert_as_defined(model_of("qwen2"), request, completion)


def test_prompts_that_are_longer_than_a_pass(tiny_file, engine_of) -> None:
    """They are run in chunks, whatever is recorded of them."""
    from langnorm.engines.registry import get_engine

    engine = get_engine(
        "llamacpp",
        tiny_file,
        {},
        {"cache_type": "f32", "flash_attention": False, "num_threads": 1, "chunk": 7, "max_sequences": 6},
    )
    requests = [
        Request(prompt, Sampling(max_tokens=12), Record(layers=(1, 3), prompt=is_recorded))
        for prompt in PROMPTS
        for is_recorded in (True, False)
    ]
    for completion, right in zip(answers(engine, requests), answers(engine_of("qwen2"), requests), strict=True):
        assert_equal(completion, right)


def test_recursion_is_refused(abacus) -> None:
    """With the reason, and before any compute."""
    request = request_of(PROMPTS[0], None, Recursion())
    with pytest.raises(OptionError, match=r"runs each layer once: `recursion` is not possible"):
        abacus.generate([request])


def test_prompts_that_cannot_be_run_are_refused(abacus) -> None:
    """Too long, empty, or with a token that the model does not know."""
    for prompt, words in (((), "empty"), ((5,) * 2048, "leaves no room"), ((5, 99_999), "token id `99999`")):
        with pytest.raises(PromptError, match=words):
            abacus.generate([Request(prompt, Sampling())])


def test_likelihoods_of_given_texts(abacus, abacus_engine) -> None:
    """Of continuations of any length, in chunks, while others are answered."""
    prompts = [chat_ids(abacus, question) for question in QUESTIONS]
    greedy = [answer(abacus, Request(prompt, Sampling(max_tokens=40))).token_ids for prompt in prompts]
    prompts += [prompts[0], prompts[1], prompts[0] * 20]
    continuations = [*greedy, [5, 6, 7], [], [7] * 300]
    expected = abacus_engine.score(prompts, continuations)
    with ThreadPoolExecutor(3) as pool:
        busy = pool.map(lambda prompt: answer(abacus, Request(prompt, Sampling(max_tokens=40))).token_ids, prompts[:3])
        found = abacus.score(prompts, continuations)
        assert list(busy) == greedy
    for one, other in zip(found, expected, strict=True):
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-3)
        assert one.is_greedy == other.is_greedy
    assert [likelihood.is_greedy for likelihood in found[:3]] == [True] * 3
    with pytest.raises(OptionError, match="Give one for each"):
        abacus.score([(5,)], [])
    with pytest.raises(PromptError, match="99999"):
        abacus.score([(5,)], [(99_999,)])


def test_reductions_of_every_kind(abacus, abacus_engine) -> None:
    """Of distributions, of updates and of mean states, in a batch and alone; a pruner sees them on the way."""
    first, second, _ = (chat_ids(abacus, question) for question in QUESTIONS)
    whole = Record(layers=(0, 9, 11), distribution=True, updates=True, mean_states=True)
    seen: list[Partial] = []

    class Watcher:
        every = 6

        def stopped(self, samples: Sequence[Partial]) -> list[int]:
            seen.extend(samples)
            return []

    requests = [
        Request(first, Sampling(max_tokens=30), whole, top_logprobs=1),
        Request(second, Sampling(temperature=0.9, seed=5, n=2, max_tokens=20), whole, pruner=Watcher()),
        Request(second, Sampling(max_tokens=5), Record(norms=False, mean_states=True)),
        Request(second, Sampling(max_tokens=1), whole),
        Request(first, Sampling(max_tokens=5), NORMS),
    ]
    expected = abacus_engine.generate(requests)
    seen_there = seen.copy()
    seen.clear()
    for found in (abacus.generate(requests), [abacus.generate([request])[0] for request in requests]):
        for response, right in zip(found, expected, strict=True):
            for one, other in zip(response.completions, right.completions, strict=True):
                assert_equal(one, other)
                assert_equal_reductions(one.reductions, other.reductions)
    by_tokens = {tuple(partial.token_ids): partial.reductions for partial in seen_there}
    assert len(seen) >= len(by_tokens) >= 4
    for partial in seen:
        assert_equal_reductions(partial.reductions, by_tokens[tuple(partial.token_ids)])


def assert_equal_reductions(one: Reductions, other: Reductions) -> None:
    """Compares all numbers that both have; neither has any that the other lacks."""
    pairs = [(one.mean_states, other.mean_states)]
    for part in ("distribution", "updates"):
        here, there = getattr(one, part), getattr(other, part)
        assert (here is None) == (there is None)
        if here is not None:
            pairs += [(getattr(here, field.name), getattr(there, field.name)) for field in fields(here)]
    for found, right in pairs:
        assert (found is None) == (right is None)
        if found is not None:
            np.testing.assert_allclose(found, right, rtol=2e-3, atol=2e-3)

"""How likely vLLM finds given texts is how likely transformers finds them, of the same weights in float32."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import PromptError
from tests.support.calls import PROMPTS, answer
from tests.vllm.conftest import QUESTIONS, chat_ids, sizes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langnorm.engines.requests import Likelihood

CONTINUATIONS = ((5, 9, 11), (301,), (), (7, 8, 9, 10, 11, 12), (44, 45))


def assert_equal(found: Sequence[Likelihood], expected: Sequence[Likelihood]) -> None:
    """Compares likelihoods."""
    for one, other in zip(found, expected, strict=True):
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)
        assert one.is_greedy == other.is_greedy


def test_answers_of_the_bundled_model(abacus, abacus_engine) -> None:
    """Its own, whole and with another end, and those to other questions; prompts are cut into chunks."""
    prompts = [chat_ids(abacus, question) for question in QUESTIONS]
    own = [answer(abacus, Request(prompt, Sampling(max_tokens=80))).token_ids for prompt in prompts]
    others = [[*ids[:-1], ids[-1] + 1] for ids in own]
    for continuations in (own, others, [*own[1:], own[0]], [ids[:1] for ids in own]):
        scored = abacus.score(prompts, continuations)
        assert_equal(scored, abacus_engine.score(prompts, continuations))
    assert [likelihood.is_greedy for likelihood in abacus.score(prompts, own)] == [True] * 3
    assert not any(likelihood.is_greedy for likelihood in abacus.score(prompts, others))


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_prompts_of_all_lengths(vllm_of, model_of, tokenizer, family) -> None:
    """Of random weights, an empty continuation and one of a single token among them."""
    plain = TransformersEngine(model_of(family, **sizes_of(family)), tokenizer)
    expected = plain.score(PROMPTS, CONTINUATIONS)
    assert_equal(vllm_of(family).score(PROMPTS, CONTINUATIONS), expected)


def test_a_text_may_fill_the_context_but_for_one_token(vllm_of, model_of, tokenizer) -> None:
    """And no more: vLLM keeps a place for an answer."""
    engine, plain = vllm_of("qwen3"), TransformersEngine(model_of("qwen3", **sizes_of("qwen3")), tokenizer)
    prompt = tuple(range(5, 5 + engine.scored_length - 2))
    assert_equal(engine.score([prompt], [(7, 8, 9)]), plain.score([prompt], [(7, 8, 9)]))
    with pytest.raises(PromptError, match="need 512 tokens, and there is no room for more than 511"):
        engine.score([prompt], [(7, 8, 9, 10)])


def test_texts_beside_answers(abacus, abacus_engine) -> None:
    """In one pass with drawn tokens and log-probabilities, and neither changes the other."""
    prompts = [chat_ids(abacus, question) for question in QUESTIONS]
    continuations = [tuple(range(20 + number, 40)) for number in range(3)]
    request = Request(
        prompts[1], Sampling(temperature=1.5, seed=3, n=2, max_tokens=60), Record(layers=(3,)), top_logprobs=2
    )
    right = abacus.generate([request])[0].completions
    expected = abacus_engine.score(prompts, continuations)
    with ThreadPoolExecutor(8) as pool:
        generated = [pool.submit(abacus.generate, [request]) for _ in range(3)]
        beside = [pool.submit(abacus.score, prompts, continuations) for _ in range(8)]
        for future in beside:
            assert_equal(future.result(), expected)
        for future in generated:
            for one, other in zip(future.result()[0].completions, right, strict=True):
                assert one.token_ids == other.token_ids
                for here, there in zip(one.logprobs, other.logprobs, strict=True):
                    assert here.logprob == pytest.approx(there.logprob, abs=1e-3)
                    assert [pair[0] for pair in here.top] == [pair[0] for pair in there.top]
                for row, expected_row in zip(one.norms, other.norms, strict=True):
                    assert row == pytest.approx(expected_row, rel=1e-4)

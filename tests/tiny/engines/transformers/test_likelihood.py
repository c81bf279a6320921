"""Log-likelihoods of given texts are those of plain forward passes, one text at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from langnorm.engines.transformers import likelihood
from langnorm.errors import OptionError, PromptError
from tests.support.calls import PROMPTS, ask, tokens

CONTINUATIONS = ((5, 9, 11), (301,), (), (7, 8, 9, 10, 11, 12), (44, 45))


@torch.no_grad()
def plain_likelihood(model, prompt, continuation) -> tuple[list[float], bool]:
    """Returns the log-probability of each token, and whether each is the likeliest, without padding."""
    logits = model(input_ids=torch.tensor([[*prompt, *continuation]])).logits[0].double()
    logprobs, is_greedy = [], True
    for place, token in enumerate(continuation, len(prompt) - 1):
        logprobs.append(float(logits[place, token] - logits[place].exp().sum().log()))
        is_greedy &= int(logits[place].argmax()) == token
    return logprobs, is_greedy


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "gpt2", "mixtral"])
def test_likelihoods_are_those_of_plain_passes(family, engine_of, model_of) -> None:
    """In a padded batch of unequal prompts and continuations, an empty one among them."""
    scored = engine_of(family).score(PROMPTS, CONTINUATIONS)
    for prompt, continuation, result in zip(PROMPTS, CONTINUATIONS, scored, strict=True):
        logprobs, is_greedy = plain_likelihood(model_of(family), prompt, continuation)
        assert result.token_logprobs == pytest.approx(logprobs, abs=1e-4)
        assert result.logprob == pytest.approx(sum(logprobs), abs=1e-3)
        assert result.is_greedy == is_greedy


def test_what_a_model_says_by_itself_is_greedy(engine_of) -> None:
    """Its own greedy answers are, and the same with another last token are not."""
    engine = engine_of("qwen3")
    answers = tokens(engine, [ask(prompt, max_tokens=6) for prompt in PROMPTS])
    others = [[*answer[:-1], (answer[-1] + 1) % 900] for answer in answers]
    assert all(result.is_greedy for result in engine.score(PROMPTS, answers))
    assert not any(result.is_greedy for result in engine.score(PROMPTS, others))


def test_small_batches_give_the_same(engine_of, monkeypatch) -> None:
    """However many texts memory has room for."""
    engine = engine_of("qwen3")
    together = engine.score(PROMPTS, CONTINUATIONS)
    monkeypatch.setattr(likelihood, "_MOST_LOGITS", 1)
    alone = engine.score(PROMPTS, CONTINUATIONS)
    for one, other in zip(together, alone, strict=True):
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)


def test_scoring_beside_generation_changes_neither(engine_of) -> None:
    """Norms are recorded by hooks, which must not see the passes of other callers."""
    engine = engine_of("qwen3")
    requests = [ask(prompt, max_tokens=20, layers=[2]) for prompt in PROMPTS]
    norms = [response.completions[0].norms for response in engine.generate(requests)]
    scored = engine.score(PROMPTS, CONTINUATIONS)
    with ThreadPoolExecutor() as pool:
        generated = [pool.submit(engine.generate, requests) for _ in range(3)]
        beside = [pool.submit(engine.score, PROMPTS, CONTINUATIONS) for _ in range(6)]
    assert all(future.result() == scored for future in beside)
    for future in generated:
        for response, rows in zip(future.result(), norms, strict=True):
            assert response.completions[0].norms == [pytest.approx(row, rel=1e-4) for row in rows]


def test_a_text_may_fill_the_context(engine_of, model_of) -> None:
    """The last token is not run, so prompt and continuation may have one token more than the context."""
    engine = engine_of("gpt2")
    prompt = tuple(range(5, 5 + engine.context_length - 1))
    (scored,) = engine.score([prompt], [(7, 8)])
    logprobs, _ = plain_likelihood(model_of("gpt2"), prompt, (7,))
    assert scored.token_logprobs[:1] == pytest.approx(logprobs, abs=1e-4)
    with pytest.raises(PromptError, match=f"need {engine.context_length + 1} tokens, and there is no room"):
        engine.score([prompt], [(7, 8, 9)])


def test_what_cannot_be_scored_is_refused(engine_of) -> None:
    """An empty prompt, a token that the model does not know, more than the context holds, and one list too short."""
    engine = engine_of("qwen3")
    with pytest.raises(PromptError, match="prompt is empty"):
        engine.score([()], [(1,)])
    with pytest.raises(PromptError, match="token id `123456`"):
        engine.score([(1,)], [(123456,)])
    with pytest.raises(PromptError, match="no room"):
        engine.score([(1,) * 600], [(1, 2)])
    with pytest.raises(OptionError, match="2 prompts and 1 continuations"):
        engine.score([(1,), (2,)], [(1,)])

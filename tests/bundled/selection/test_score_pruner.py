"""Candidates of a selection on Abacus are stopped early by their running score."""

from __future__ import annotations

import pytest

from langnorm import ChatLangNorm, NormSelector
from langnorm.chat.results import build_result
from tests.bundled.test_chat_models import facts
from tests.support.selections import QUESTION, ranking, sampled


@pytest.fixture(scope="module")
def chat() -> ChatLangNorm:
    """Abacus with samples that differ, the same ones in every call."""
    return ChatLangNorm(temperature=1.0, seed=5, max_tokens=120)


@pytest.fixture(scope="module")
def lengths(chat) -> list[int]:
    """How many tokens each of eight samples has that is not stopped."""
    return [message.usage_metadata["output_tokens"] for message in sampled(chat, 8)]


@pytest.mark.parametrize("prune", ["halving", {"rule": "threshold", "every": 8, "first": 1, "quantile": 1.0}])
def test_pruned_candidates_stop_before_they_are_finished(chat, lengths, prune) -> None:
    """They have fewer tokens than on their own, say so, and are never kept; saved tokens are told."""
    options = {"every": 16} | prune if isinstance(prune, dict) else {"rule": prune, "every": 16}
    best = NormSelector(chat, n=8, score="mean_logprob", prune=options).invoke(QUESTION)
    found = ranking(best)

    pruned = [i for i, candidate in enumerate(found["candidates"]) if candidate["finish_reason"] == "pruned"]
    assert pruned
    for i, candidate in enumerate(found["candidates"]):
        assert candidate["tokens"] < lengths[i] if i in pruned else candidate["tokens"] == lengths[i]
        assert candidate["support"] == 0 or i not in pruned
    assert found["chosen"] not in pruned
    assert found["tokens"] == best.usage_metadata["output_tokens"] < sum(lengths)
    assert isinstance(found["tokens_saved"], int)


def test_pruning_reaches_over_batches(chat) -> None:
    """Where the samples do not fit into one batch, later ones are compared with those that are over."""
    options = {"rule": "threshold", "every": 8, "first": 2, "quantile": 1.0, "least": 1}
    selector = NormSelector(chat, n=8, score="mean_logprob", prune=options)
    found = ranking(selector.invoke(QUESTION, max_batch_size=2))

    reasons = [candidate["finish_reason"] for candidate in found["candidates"]]
    assert reasons[:2] == ["stop", "stop"]
    assert "pruned" in reasons[2:]


def test_other_requests_never_notice_pruning(chat) -> None:
    """A request in the same batch has the tokens that it has alone."""
    alone = facts(chat.invoke("What is 47 + 385?"))
    pruning = {"n": 6, "score": "mean_logprob", "prune": {"every": 8, "least": 1}}
    engine = chat.loaded_engine()
    calls = [
        chat._prepare(chat._convert_input(QUESTION).to_messages(), None, {"selection": pruning}),
        chat._prepare(chat._convert_input("What is 47 + 385?").to_messages(), None, {}),
    ]
    first, second = engine.generate([call.request for call in calls])

    assert "pruned" in {completion.finish_reason for completion in first.completions}
    message = build_result(calls[1], second).generations[0].message
    assert message.content == alone["content"]
    assert message.usage_metadata == alone["usage_metadata"]

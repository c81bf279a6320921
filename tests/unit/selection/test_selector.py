"""Messages that are at hand are ranked, whoever made them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from langnorm import ChatLangNorm, NormSelector
from langnorm.errors import OptionError
from langnorm.selection import Selection, rank
from langnorm.selection.ranking import by_score
from tests.support.selections import ranking


def test_messages_of_other_models_can_be_ranked_by_votes() -> None:
    """Where the score is None, an answer is all that is needed; the message that came is left as it is."""
    messages = [AIMessage(f"It is {number}.") for number in (7, 12, 12, 9)]
    ranked = rank(messages, score=None, vote="majority")

    assert [message.content for message in ranked[:2]] == ["It is 12.", "It is 12."]
    assert ranking(ranked[0])["agreement"] == 0.5
    assert messages[1].response_metadata == {}


def test_words_of_other_models_for_the_end_are_known() -> None:
    """An answer that other providers call cut off has no vote; one of which nothing is said has."""
    ends: list[dict[str, Any]] = [
        {"stop_reason": "max_tokens"},
        {"stop_reason": "model_context_window_exceeded"},
        {"done_reason": "length"},
        {"finish_reason": "MAX_TOKENS"},
        {"finish_reason": "model_length"},
        {"stopReason": "max_tokens"},
        {"stopReason": "content_filtered"},
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        {"status": "completed", "incomplete_details": None},
    ]
    messages = [AIMessage("It is 7.", response_metadata=end) for end in ends]
    ranked = rank(messages, score=None, vote="majority")

    assert ranked[0].response_metadata["langnorm"]["selection"]["chosen"] == 8
    assert [candidate["support"] for candidate in ranking(ranked[0])["candidates"]] == [*[0] * 8, 1]
    assert "8 of 9 were cut off at max_tokens (1 of them by a filter)" in ranking(ranked[0])["warnings"][0]


def test_messages_of_other_models_can_be_ranked_by_their_length() -> None:
    """By the number of tokens that they say, or that they have log-probabilities of."""
    usage = UsageMetadata(input_tokens=1, output_tokens=30, total_tokens=31)
    messages = [AIMessage("It is 7.", usage_metadata=usage), AIMessage("It is 9.")]
    messages.append(AIMessage("It is 8.", usage_metadata=usage | {"output_tokens": 20}))
    ranked = rank(messages, score="shorter", near=0)
    assert [candidate["score"] for candidate in ranking(ranked[0])["candidates"]] == [-30, None, -20]
    assert [message.text for message in ranked] == ["It is 8.", "It is 7.", "It is 9."]


@pytest.mark.parametrize("near", [0, 0.8])
def test_huge_scores_are_ranked(near) -> None:
    """Their squares, and sums of them, are infinite."""
    assert by_score([0, 1, 2], [-1.7e308, 1.7e308, 1e300], [1, 1, 1], near) == [1, 2, 0]


@pytest.mark.parametrize(
    "select",
    [
        lambda **given: NormSelector(ChatLangNorm(), **given),
        lambda **given: ChatLangNorm().with_selection(**given),
        lambda **given: rank([AIMessage("7")], **given),
    ],
    ids=["selector", "chat model", "messages"],
)
def test_options_beside_a_selection_are_refused(select: Callable[..., Any]) -> None:
    """They would be passed over in silence, misspelt ones too."""
    with pytest.raises(OptionError, match="`selection` is given, and `n`, `votes` beside it. Give all options in"):
        select(selection=Selection(n=2, score=None), n=8, votes="majority")
    assert select(selection=Selection(n=2, score=None))


def test_what_rank_says_of_a_selection_is_what_was_done() -> None:
    """Messages that are there were neither stopped early nor drawn in windows."""
    messages = [AIMessage("It is 7."), AIMessage("It is 12, says the sum.")]
    found = ranking(rank(messages, n=9, score="shorter", prune="halving")[0])
    assert (found["n"], found["prune"], found["tokens_saved"], found["samples_saved"]) == (2, None, None, None)

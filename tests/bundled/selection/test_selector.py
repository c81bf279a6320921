"""Selection on Abacus: the best of n, however it is asked for, with a ranking to check it by."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel

from langnorm import ChatLangNorm, NormSelector, NormTrace, Selection
from langnorm.errors import OptionError
from langnorm.selection import rank
from tests.bundled.test_chat_models import facts, merged
from tests.support.selections import QUESTION, ranking, sampled

SCORES = ("numeral_logprob", "numeral_norm", "late_rate", {"mean_logprob": 1.0, "mean": 0.5}, "shorter")


class Sum(BaseModel):
    """A sum."""

    total: int


@pytest.fixture(scope="module")
def chat() -> ChatLangNorm:
    """Abacus with samples that differ, the same ones in every call."""
    return ChatLangNorm(temperature=1.0, seed=5, max_tokens=120)


@pytest.fixture(scope="module")
def six(chat) -> list[AIMessage]:
    """Six samples as messages."""
    return sampled(chat, 6)


@pytest.mark.parametrize("vote", ["none", "majority", "weighted", "filtered"])
@pytest.mark.parametrize("score", SCORES)
def test_the_best_of_n_is_the_one_that_rank_puts_first(chat, six, score, vote) -> None:
    """Selecting while sampling, and ranking the same samples as messages, choose the same by the same scores."""
    options = {"score": score, "vote": vote}
    messages = deepcopy(six)
    best = NormSelector(chat, n=6, **options).invoke(QUESTION)
    ranked = rank(messages, **options)

    assert best.content == ranked[0].content
    assert best.additional_kwargs["reasoning_content"] == ranked[0].additional_kwargs["reasoning_content"]
    found, expected = ranking(best), ranking(ranked[0])
    texts = [message.additional_kwargs["reasoning_content"] + message.text for message in messages]
    # Of samples that are the same, rounding decides in what order `rank` finds them.
    assert [texts[i] for i in found["order"]] == [texts[i] for i in expected["order"]]
    assert messages[found["chosen"]].content == best.content
    for of_one, of_other in zip(found["candidates"], expected["candidates"], strict=True):
        assert of_one["score"] is not None
        assert of_one["score"] == pytest.approx(of_other["score"], rel=1e-4, abs=1e-6)
        assert {key: of_one[key] for key in ("answer", "support", "tokens", "finish_reason")} == {
            key: of_other[key] for key in ("answer", "support", "tokens", "finish_reason")
        }


def test_ranking_tells_all_there_is_to_know(chat) -> None:
    """Every candidate has its scores, answer, length and end; the whole is plain JSON."""
    messages = sampled(chat, 5)
    found = ranking(NormSelector(chat, n=5, score="numeral_logprob", vote="majority", answer="number").invoke(QUESTION))

    assert [candidate["tokens"] for candidate in found["candidates"]] == [
        message.usage_metadata["output_tokens"] for message in messages
    ]
    assert [candidate["finish_reason"] for candidate in found["candidates"]] == [
        message.response_metadata["finish_reason"] for message in messages
    ]
    assert all(set(candidate["scores"]) == {"numeral_logprob"} for candidate in found["candidates"])
    assert found["n"] == 5
    assert (found["score"], found["vote"], found["answer"]) == ("numeral_logprob", "majority", "number")
    assert sorted(found["order"]) == [0, 1, 2, 3, 4]
    answers = [candidate["answer"] for candidate in found["candidates"]]
    assert None not in answers
    assert max(map(answers.count, answers)) == answers.count(found["majority"]) > 1
    assert found["agrees"] is True
    assert answers[found["chosen"]] == found["majority"]
    assert found["tokens"] == sum(candidate["tokens"] for candidate in found["candidates"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_usage_counts_the_tokens_of_all_candidates(chat) -> None:
    """What was computed is what is counted, the reasoning of all candidates too."""
    messages = sampled(chat, 4)
    usage = chat.with_selection(n=4).invoke(QUESTION).usage_metadata

    assert usage["input_tokens"] == messages[0].usage_metadata["input_tokens"]
    assert usage["output_tokens"] == sum(message.usage_metadata["output_tokens"] for message in messages)
    reasoning = [message.usage_metadata["output_token_details"]["reasoning"] for message in messages]
    assert usage["output_token_details"]["reasoning"] == sum(reasoning)


async def test_every_way_of_asking_gives_the_same_message(chat) -> None:
    """invoke, ainvoke, batch, abatch and both streams agree, metadata and usage included."""
    selector = NormSelector(chat, n=4, vote="majority")
    expected = facts(selector.invoke(QUESTION))

    assert facts(await selector.ainvoke(QUESTION)) == expected
    assert facts(merged(list(selector.stream(QUESTION)))) == expected
    assert facts(merged([chunk async for chunk in selector.astream(QUESTION)])) == expected
    assert [facts(message) for message in selector.batch([QUESTION, QUESTION])] == [expected] * 2
    assert [facts(message) for message in await selector.abatch([QUESTION])] == [expected]
    assert facts(chat.with_selection(n=4, vote="majority").invoke(QUESTION)) == expected
    assert facts(chat.invoke(QUESTION, selection={"n": 4, "vote": "majority"})) == expected


async def test_under_a_streaming_handler_it_still_selects(chat) -> None:
    """With events, where LangChain streams every model, the message is the best of n all the same."""
    selector = NormSelector(chat, n=4)
    expected = facts(selector.invoke(QUESTION))
    events = [event async for event in selector.astream_events(QUESTION, version="v2")]
    ends = [event["data"]["output"] for event in events if event["event"] == "on_chat_model_end"]

    assert len(ends) == 1
    assert facts(ends[0]) == expected


def test_one_sample_is_selected_without_ado(chat) -> None:
    """With n = 1 the only candidate is kept, greedy or not."""
    alone = chat.with_selection(n=1).invoke(QUESTION, temperature=0)

    assert alone.content == chat.invoke(QUESTION, temperature=0).content
    assert ranking(alone)["order"] == [0]


def test_truncated_candidates_do_not_win_over_finished_ones(chat) -> None:
    """Answers that were cut off have no vote, and rank behind those that ended."""
    lengths = sorted(message.usage_metadata["output_tokens"] for message in sampled(chat, 8))
    assert lengths[0] < lengths[-1]
    with pytest.warns(UserWarning, match="of 8 samples of a selection ended at `max_tokens`"):
        best = NormSelector(chat, n=8, vote="majority").invoke(QUESTION, max_tokens=lengths[0])
    found = ranking(best)

    reasons = [candidate["finish_reason"] for candidate in found["candidates"]]
    assert "length" in reasons
    assert best.response_metadata["finish_reason"] == "stop"
    assert [reasons[i] for i in found["order"]] == sorted(reasons, reverse=True)
    assert all(candidate["support"] == 0 for candidate in found["candidates"] if candidate["finish_reason"] == "length")


def test_all_truncated_candidates_are_ranked_by_score(chat) -> None:
    """Where none has ended, the best score is kept and nobody votes; a warning says what to do."""
    with pytest.warns(UserWarning, match="3 of 3 samples .* Raise `max_tokens`") as warned:
        found = ranking(NormSelector(chat, n=3, vote="majority").invoke(QUESTION, max_tokens=3))
    assert len(warned) == 1

    assert {candidate["finish_reason"] for candidate in found["candidates"]} == {"length"}
    assert found["majority"] is found["agrees"] is found["agreement"] is None


def test_a_message_shows_only_what_was_asked_for(chat) -> None:
    """What the score reads, norms of tokens and log-probabilities, is on the message only if the caller wants it."""
    selector = NormSelector(chat, n=2, score={"late_rate": 1, "mean_logprob": 1})
    plain, off = selector.invoke(QUESTION), selector.invoke(QUESTION, norms="off")
    full = selector.invoke(QUESTION, norms="tokens", logprobs=True)

    assert "logprobs" not in plain.response_metadata
    assert "langnorm" not in plain.additional_kwargs
    assert NormTrace.from_message(plain).steps
    assert list(off.response_metadata["langnorm"]) == ["selection"]
    assert full.response_metadata["logprobs"]["content"]
    assert NormTrace.from_message(full).token_norms
    assert ranking(plain)["order"] == ranking(off)["order"] == ranking(full)["order"]


def test_it_takes_its_place_in_a_chain(chat) -> None:
    """A prompt before it and a parser behind it; the selector is a Runnable like any."""
    chain = ChatPromptTemplate.from_template("{question}") | NormSelector(chat, n=3) | StrOutputParser()

    assert chain.invoke({"question": QUESTION}) == NormSelector(chat, n=3).invoke(QUESTION).content
    assert chain.batch([{"question": QUESTION}])[0]


def test_config_and_callbacks_see_one_run_of_the_model(chat) -> None:
    """Tags and names arrive; a selection is one run, not n."""
    seen = []

    class Watch(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:  # noqa: ARG002
            seen.append((kwargs["tags"], kwargs["name"]))

    selector = NormSelector(chat, n=3).with_config(tags=["mine"], run_name="best")
    selector.invoke(QUESTION, config={"callbacks": [Watch()]})

    assert seen == [(["mine"], "best")]


def test_tools_stay_bound(chat) -> None:
    """A selector over a model with tools, tools bound to a selector, and a selecting model agree."""

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    forced = {"tool_choice": "any"}
    replies = [
        NormSelector(chat.bind_tools([add], **forced), n=3, vote="majority").invoke("Add 2 and 3."),
        NormSelector(chat, n=3, vote="majority").bind_tools([add], **forced).invoke("Add 2 and 3."),
        chat.with_selection(n=3, vote="majority").bind_tools([add], **forced).invoke("Add 2 and 3."),
    ]
    for reply in replies:
        assert [call["name"] for call in reply.tool_calls] == ["add"]
        answers = [candidate["answer"] for candidate in ranking(reply)["candidates"]]
        assert json.loads(answers[ranking(reply)["chosen"]]) == [
            {"args": reply.tool_calls[0]["args"], "name": "add"},
        ]
    assert len({json.dumps(reply.tool_calls[0]["args"], sort_keys=True) for reply in replies}) == 1


def test_structured_output_is_parsed_from_the_best_answer(chat) -> None:
    """The schema holds every candidate, and the parser sees the one that was kept."""
    for chain in (
        NormSelector(chat, n=3).with_structured_output(Sum),
        chat.with_selection(n=3).with_structured_output(Sum),
    ):
        assert isinstance(chain.invoke("What is 2 + 3?"), Sum)
    raw = NormSelector(chat, n=3).with_structured_output(Sum, include_raw=True).invoke("What is 2 + 3?")
    chosen = ranking(raw["raw"])
    assert json.loads(chosen["candidates"][chosen["chosen"]]["answer"]) == raw["parsed"].model_dump()


@pytest.mark.filterwarnings("ignore:.*ended at `max_tokens`")  # drawn without a seed
def test_a_cache_never_makes_one_of_n(chat) -> None:
    """Candidates are drawn in one call; a cache holds the kept answer, under a key of its own for each selection."""
    set_llm_cache(InMemoryCache())
    try:
        free = chat.model_copy(update={"seed": None})
        first = NormSelector(free, n=8).invoke(QUESTION)
        assert len({candidate["tokens"] for candidate in ranking(first)["candidates"]}) > 1
        assert NormSelector(free, n=8).invoke(QUESTION).response_metadata == first.response_metadata
        assert ranking(NormSelector(free, n=3).invoke(QUESTION))["n"] == 3
        assert "selection" not in free.invoke(QUESTION).response_metadata["langnorm"]
        assert ranking(free.with_selection(n=2).invoke(QUESTION))["n"] == 2
    finally:
        set_llm_cache(None)


def test_a_chat_model_with_selection_is_still_one(chat) -> None:
    """It has the fields and methods of a chat model; a call can switch the selection off or change it."""
    selecting = chat.with_selection(Selection(n=3, vote="majority"))

    assert isinstance(selecting, ChatLangNorm)
    assert selecting.selection == Selection(n=3, vote="majority")
    assert chat.selection is None
    assert "selection" not in selecting.invoke(QUESTION, selection=None).response_metadata["langnorm"]
    assert ranking(selecting.invoke(QUESTION, selection={"n": 2}))["n"] == 2
    configurable = chat.configurable_fields(selection=ConfigurableField(id="selection"))
    chosen = configurable.invoke(QUESTION, config={"configurable": {"selection": {"n": 2}}})
    assert ranking(chosen)["n"] == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda chat: NormSelector(chat | StrOutputParser(), n=2), "put a parser behind"),
        (lambda _: NormSelector(FakeListChatModel(responses=["a"]), n=2), "langnorm.selection.rank"),
        (lambda chat: NormSelector(chat, scoer="mean"), "Did you mean `score`"),
        (lambda chat: NormSelector(chat, score="late_rat"), "Did you mean `late_rate`"),
        (lambda chat: chat.with_selection(vote="majorty"), "Did you mean `majority`"),
        (lambda chat: chat.with_selection(prune="halfing"), "Did you mean `halving`"),
        (lambda chat: chat.invoke("Hi", selection={"n": 0}), "Use 1 or above"),
        (lambda chat: chat.invoke("Hi", selection=8), "Selection(...)"),
        (lambda chat: chat.invoke("Hi", selection={"n": 4}, n=2), "`selection=None`"),
        (lambda chat: chat.with_selection(n=4).invoke("Hi", temperature=0), "Set `temperature=0.7`"),
        (lambda _: rank([]), "Give at least one"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_names_the_mend(chat, make, words) -> None:
    """Nothing is computed before the options are known to be good."""
    with pytest.raises(OptionError) as caught:
        make(chat)
    assert words in str(caught.value)


def test_an_agent_selects_at_every_turn(chat) -> None:
    """A selecting chat model takes its place in an agent."""
    agent = create_agent(chat.with_selection(n=2), tools=[])
    state = agent.invoke({"messages": [("human", QUESTION)]})
    assert ranking(state["messages"][-1])["n"] == 2


def test_ranking_by_norms_needs_norms(chat) -> None:
    """Messages without the norms of tokens, or without log-probabilities, are told what they lack."""
    with pytest.raises(OptionError, match='norms="tokens"'):
        rank([chat.invoke(QUESTION)], score="mean")
    with pytest.raises(OptionError, match="logprobs=True"):
        rank([chat.invoke(QUESTION)], score="mean_logprob")


def test_closing_a_stream_of_a_selection_leaves_nothing_behind(chat) -> None:
    """The next call works, and its message is what it would have been."""
    stream = NormSelector(chat, n=3).stream(QUESTION)
    assert isinstance(next(iter(stream)), AIMessageChunk)
    stream.close()  # type: ignore[attr-defined]
    assert NormSelector(chat, n=3).invoke(QUESTION).content

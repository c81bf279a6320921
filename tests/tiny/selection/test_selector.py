"""Selection on Abacus and on tiny models: the best of n, however it is asked for, with a ranking to check it by."""

from __future__ import annotations

import json
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
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import OptionError
from langnorm.selection import rank
from tests.bundled.test_chat_models import facts, merged
from tests.support.calls import counted_passes

QUESTION = "Start with 12. Add 30. Subtract 4. Multiply the result by 7. What is the result?"
SCORES = ("numeral_logprob", "late_rate", {"mean_logprob": 1.0, "mean": 0.5})


class Sum(BaseModel):
    """A sum."""

    total: int


@pytest.fixture(scope="module")
def chat() -> ChatLangNorm:
    """Abacus with samples that differ, the same ones in every call."""
    return ChatLangNorm(temperature=1.0, seed=5, max_tokens=120)


def ranking(message: AIMessage) -> dict[str, Any]:
    """Return what a message says of the selection."""
    found: dict[str, Any] = message.response_metadata["langnorm"]["selection"]
    return found


def sampled(chat: ChatLangNorm, n: int, **options: Any) -> list[AIMessage]:
    """Return the messages of `n` samples, with all that scores read."""
    messages = chat._convert_input(QUESTION).to_messages()
    result = chat.generate([messages], n=n, stream=False, norms="tokens", logprobs=True, **options)
    return [generation.message for generation in result.generations[0]]  # type: ignore[union-attr,misc]


@pytest.mark.parametrize("vote", ["none", "majority", "weighted", "filtered"])
@pytest.mark.parametrize("score", SCORES)
def test_the_best_of_n_is_the_one_that_rank_puts_first(chat, score, vote) -> None:
    """Selecting while sampling, and ranking the same samples as messages, choose the same by the same scores."""
    options = {"score": score, "vote": vote}
    messages = sampled(chat, 6)
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
    assert found["agrees"] in (True, None)
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


def test_all_samples_come_from_one_call_of_the_engine(engine_of) -> None:
    """The candidates share their forward passes."""
    engine = engine_of("qwen3")
    chat = ChatLangNorm(engine=engine, temperature=1.0, max_tokens=5, seed=1)
    with counted_passes(engine.model) as passes:
        chat.with_selection(n=6, score="mean").invoke("Hi")

    assert set(passes.batch_sizes) == {6}
    assert len(passes) <= 5


def test_one_sample_is_selected_without_ado(chat) -> None:
    """With n = 1 the only candidate is kept, greedy or not."""
    alone = chat.with_selection(n=1).invoke(QUESTION, temperature=0)

    assert alone.content == chat.invoke(QUESTION, temperature=0).content
    assert ranking(alone)["order"] == [0]


def test_truncated_candidates_do_not_win_over_finished_ones(chat) -> None:
    """Answers that were cut off have no vote, and rank behind those that ended."""
    lengths = sorted(message.usage_metadata["output_tokens"] for message in sampled(chat, 8))
    assert lengths[0] < lengths[-1]
    best = NormSelector(chat, n=8, vote="majority").invoke(QUESTION, max_tokens=lengths[0])
    found = ranking(best)

    reasons = [candidate["finish_reason"] for candidate in found["candidates"]]
    assert "length" in reasons
    assert best.response_metadata["finish_reason"] == "stop"
    assert [reasons[i] for i in found["order"]] == sorted(reasons, reverse=True)
    assert all(candidate["support"] == 0 for candidate in found["candidates"] if candidate["finish_reason"] == "length")


def test_all_truncated_candidates_are_ranked_by_score(chat) -> None:
    """Where none has ended, the best score is kept and nobody votes."""
    found = ranking(NormSelector(chat, n=3, vote="majority").invoke(QUESTION, max_tokens=3))

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


def test_a_score_of_thresholds_needs_something_to_compare_with(model_of, tokenizer) -> None:
    """On a model of which nothing is known, that is said before anything is computed."""
    engine = TransformersEngine(model_of("qwen3"), tokenizer)
    chat = ChatLangNorm(engine=engine, temperature=1.0, max_tokens=4)
    with counted_passes(engine.model) as passes, pytest.raises(OptionError, match="Calibrate a NormProfile"):
        chat.with_selection(n=2, score="late_rate").invoke("Hi")
    assert len(passes) == 0
    assert ranking(chat.with_selection(n=2, score="mean").invoke("Hi"))["n"] == 2


def test_messages_of_other_models_can_be_ranked_by_votes() -> None:
    """Where the score is None, an answer is all that is needed; the message that came is left as it is."""
    messages = [AIMessage(f"It is {number}.") for number in (7, 12, 12, 9)]
    ranked = rank(messages, score=None, vote="majority")

    assert [message.content for message in ranked[:2]] == ["It is 12.", "It is 12."]
    assert ranking(ranked[0])["agreement"] == 0.5
    assert messages[1].response_metadata == {}


def test_words_of_other_models_for_the_end_are_known() -> None:
    """An answer that Anthropic, Ollama or Gemini call cut off has no vote; one of which nothing is said has."""
    ends = [{"stop_reason": "max_tokens"}, {"done_reason": "length"}, {"finish_reason": "MAX_TOKENS"}, {}]
    messages = [AIMessage("It is 7.", response_metadata=end) for end in ends]
    ranked = rank(messages, score=None, vote="majority")

    assert ranked[0].response_metadata["langnorm"]["selection"]["chosen"] == 3
    assert [candidate["support"] for candidate in ranking(ranked[0])["candidates"]] == [0, 0, 0, 1]


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


@pytest.mark.parametrize("prune", ["halving", {"rule": "threshold", "every": 8, "first": 1, "quantile": 1.0}])
def test_pruned_candidates_stop_before_they_are_finished(chat, prune) -> None:
    """They have fewer tokens than on their own, say so, and are never kept; saved tokens are told."""
    whole = [message.usage_metadata["output_tokens"] for message in sampled(chat, 8)]
    options = {"every": 16} | prune if isinstance(prune, dict) else {"rule": prune, "every": 16}
    best = NormSelector(chat, n=8, score="mean_logprob", prune=options).invoke(QUESTION)
    found = ranking(best)

    pruned = [i for i, candidate in enumerate(found["candidates"]) if candidate["finish_reason"] == "pruned"]
    assert pruned
    for i, candidate in enumerate(found["candidates"]):
        assert candidate["tokens"] < whole[i] if i in pruned else candidate["tokens"] == whole[i]
        assert candidate["support"] == 0 or i not in pruned
    assert found["chosen"] not in pruned
    assert found["tokens"] == best.usage_metadata["output_tokens"] < sum(whole)
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
    message = calls[1].message(second.completions[0])
    assert message.content == alone["content"]
    assert message.usage_metadata == alone["usage_metadata"]


def test_an_engine_that_cannot_stop_samples_says_so(chat) -> None:
    """Early stopping is refused before anything is computed."""

    class Whole:
        can_prune = False

        def __getattr__(self, name: str) -> Any:
            return getattr(chat.loaded_engine(), name)

    model = chat.model_copy(update={"engine": Whole()})
    with pytest.raises(OptionError, match="cannot stop single samples"):
        model.with_selection(n=2, prune="halving").invoke(QUESTION)


def test_closing_a_stream_of_a_selection_leaves_nothing_behind(chat) -> None:
    """The next call works, and its message is what it would have been."""
    stream = NormSelector(chat, n=3).stream(QUESTION)
    assert isinstance(next(iter(stream)), AIMessageChunk)
    stream.close()  # type: ignore[attr-defined]
    assert NormSelector(chat, n=3).invoke(QUESTION).content

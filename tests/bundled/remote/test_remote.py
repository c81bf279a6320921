"""A chat model whose calls a server answers gives the messages of one that answers itself, on the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from langnorm import ChatLangNorm, NormRetry, NormSelector, NormTrace, Recursion
from langnorm.errors import OptionError, PromptError
from langnorm.middleware import NormRetryMiddleware
from tests.support.servers import LOOPBACK, running_server

pytestmark = LOOPBACK

QUESTION = "Start with 47. Add 38. Multiply by 3. What is it?"
SETTINGS: dict[str, Any] = {"temperature": 0, "max_tokens": 200}


@tool
def weather(city: str) -> str:
    """Get the weather in a city."""
    return f"It is sunny in {city}."


class Result(BaseModel):
    """A result."""

    value: int


@pytest.fixture(scope="module")
def url(abacus_engine: Any) -> Iterator[str]:
    """A server of the bundled model."""
    with running_server(ChatLangNorm(engine=abacus_engine, model="abacus")) as url:
        yield url


@pytest.fixture
def local(abacus_engine: Any) -> ChatLangNorm:
    """The model in this process; nothing of earlier calls is kept."""
    abacus_engine.clear_prefix_cache()
    return ChatLangNorm(engine=abacus_engine, model="abacus", **SETTINGS)


@pytest.fixture
def remote(url: str) -> ChatLangNorm:
    """The model behind the server."""
    return ChatLangNorm(engine="remote", base_url=url, **SETTINGS)


def plain(message: Any) -> dict[str, Any]:
    """Returns all of a message but ids, which are drawn, and what depends on earlier calls."""
    fields = message.model_dump(exclude={"id"})
    if fields["usage_metadata"]:
        fields["usage_metadata"].pop("input_token_details", None)
    fields["response_metadata"].get("langnorm", {}).pop("prefix_cache", None)
    for call in (*fields["tool_calls"], *fields["invalid_tool_calls"], *fields.get("tool_call_chunks", ())):
        call["id"] = bool(call["id"])
    for block in fields["content"] if isinstance(fields["content"], list) else ():
        block.pop("id", None)
    return fields


CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tokens": {"norms": "tokens"},
    "off": {"norms": "off", "layers": [3, -2]},
    "sampled": {"temperature": 0.8, "seed": 7, "top_p": 0.9, "top_k": 20, "min_p": 0.01, "repetition_penalty": 1.01},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "distribution": {"distribution": True},
    "lens": {"lens": [8, -2]},
    "cut": {"max_tokens": 9},
    "stop": {"stop": ["38"]},
    "not thinking": {"enable_thinking": False},
    "recursion": {"recursion": Recursion(max_extra=1, layers=[9, -2], threshold={9: 50.0, 10: 50.0})},
    "steering": {"steering": {"beta": 0.5}},
    "suppression": {"suppression": {"threshold": {"rule": "quantile", "q": 0.9}}},
    "selection": {"selection": {"n": 3, "vote": "majority"}, "temperature": 0.8, "seed": 7},
    "weights": {"selection": {"n": 3, "score": {"mean_logprob": 1, "late_rate": 0.5}}, "temperature": 0.8, "seed": 7},
    "tools": {"tools": [weather]},
    "forced": {"tools": [weather], "tool_choice": "weather"},
    "any": {"tools": [weather], "tool_choice": "any", "parallel_tool_calls": True},
    "broken off": {"tools": [weather], "enable_thinking": False, "max_tokens": 14},
    "schema": {"response_format": Result},
    "threshold": {"threshold": {"rule": "quantile", "q": 0.5}, "low_below": 0.5, "step_splitter": "line"},
    "own thresholds": {"threshold": {9: 40.0, 10: 50.0}},
    "by token": {"intensity": "token"},
    "without a profile": {"norm_profile": None},
}


@pytest.mark.parametrize("name", CALLS)
def test_messages_are_the_same(abacus_engine: Any, local: ChatLangNorm, remote: ChatLangNorm, name: str) -> None:
    """Text, reasoning, calls, usage, log-probabilities and all of the trace, whatever is asked for."""
    options = dict(CALLS[name])
    if "tools" in options:
        tools = options.pop("tools")
        local, remote = local.bind_tools(tools, **options), remote.bind_tools(tools, **options)  # type: ignore[assignment]
        options = {}
    question = "What is the weather in Oslo?" if name in ("tools", "forced", "any", "broken off") else QUESTION
    if name == "without a profile":  # what is known grows with every call: nothing here depends on it but this
        local.invoke(question, **options)
    expected = local.invoke(question, **options)
    abacus_engine.clear_prefix_cache()  # what starts from there may be rounded otherwise
    message = remote.invoke(question, **options)
    if name != "without a profile":
        assert plain(message) == plain(expected)
    assert message.text == expected.text
    if options.get("norms") != "off":
        assert NormTrace.from_message(message).layers == NormTrace.from_message(expected).layers


@pytest.mark.parametrize("output_version", ["v0", "v1"])
@pytest.mark.parametrize("name", ["plain", "tokens", "logprobs", "tools", "broken off", "selection"])
def test_streams_are_the_same(
    abacus_engine: Any, local: ChatLangNorm, remote: ChatLangNorm, name: str, output_version: str
) -> None:
    """Chunk by chunk; the trace comes with the last one."""
    options = dict(CALLS[name])
    question = "What is the weather in Oslo?" if "tools" in options else QUESTION
    runs = []
    for chat in (local, remote):
        abacus_engine.clear_prefix_cache()
        tools = options.pop("tools", [])
        model = chat.model_copy(update={"output_version": output_version})
        bound: Any = model.bind_tools(tools, **options) if tools else model.bind(**options)
        options |= {"tools": tools} if tools else {}
        runs.append(list(bound.stream(question)))
    whole = [sum(chunks[1:], chunks[0]) for chunks in runs]
    assert plain(whole[1]) == plain(whole[0])
    assert [plain(chunk) for chunk in runs[1]] == [plain(chunk) for chunk in runs[0]]
    assert "langnorm" in runs[1][-1].response_metadata
    assert not any(chunk.response_metadata.get("langnorm") for chunk in runs[1][:-1])


async def test_asynchronous_calls_are_the_same(abacus_engine: Any, local: ChatLangNorm, remote: ChatLangNorm) -> None:
    """Whole and streamed."""
    expected = plain(remote.invoke(QUESTION))
    abacus_engine.clear_prefix_cache()
    assert plain(await remote.ainvoke(QUESTION)) == expected
    chunks = [chunk async for chunk in remote.astream(QUESTION)]
    whole = sum(chunks[1:], chunks[0])
    assert isinstance(whole, AIMessageChunk)
    assert whole.text == expected["content"]
    replies = await remote.abatch([QUESTION, "Hi!"])
    assert replies[0].text == expected["content"]


def test_several_answers(abacus_engine: Any, local: ChatLangNorm, remote: ChatLangNorm) -> None:
    """Each with its own usage and trace."""
    options: dict[str, Any] = {"n": 3, "temperature": 0.9, "seed": 3}
    runs = []
    for chat in (local, remote):
        abacus_engine.clear_prefix_cache()
        runs.append(chat.generate([[HumanMessage(QUESTION)]], **options).generations[0])
    expected, got = [[plain(generation.message) for generation in run] for run in runs]  # type: ignore[attr-defined]
    assert got == expected
    assert len(got) == 3


def test_a_batch(local: ChatLangNorm, remote: ChatLangNorm) -> None:
    """Answers come in the order of the questions; an error is that of its own question."""
    questions = [QUESTION, "Calculate 47 + 385.", "Hi!"]
    assert [reply.text for reply in remote.batch(questions)] == [reply.text for reply in local.batch(questions)]
    replies = remote.batch([QUESTION, "word " * 9000], return_exceptions=True)
    assert isinstance(replies[0], AIMessage)
    assert isinstance(replies[1], PromptError)


def test_structured_output(remote: ChatLangNorm) -> None:
    """By each method."""
    for method in ("json_schema", "function_calling", "json_mode"):
        chain = remote.with_structured_output(Result, method=method)  # type: ignore[arg-type]
        assert isinstance(chain.invoke(QUESTION), Result)


def test_an_agent_with_tools(remote: ChatLangNorm) -> None:
    """With the middleware that asks again: an agent's process needs no model."""
    middleware = NormRetryMiddleware(max_retries=1, max_low_share=0.0)
    chat = remote.model_copy(update={"temperature": 0.5, "seed": 1})
    agent = create_agent(chat.with_selection(n=2), [weather], middleware=[middleware])
    state = agent.invoke({"messages": [HumanMessage("What is the weather in Oslo?")]}, {"recursion_limit": 12})
    assert any(message.type == "tool" for message in state["messages"])
    assert "attempts" in state["messages"][1].response_metadata["langnorm"]


def test_retries_and_selection(remote: ChatLangNorm) -> None:
    """Weak answers are asked again, or gone on from; a selector ranks what the server has drawn."""
    chat = remote.model_copy(update={"low_below": 1.0})
    for escalation in ("resample", "refine", "recursion"):
        reply = NormRetry(chat, max_low_share=0.0, max_attempts=2, escalation=escalation).invoke(QUESTION)  # type: ignore[arg-type]
        assert len(reply.response_metadata["langnorm"]["attempts"]) == 2
    best = NormSelector(remote.bind(temperature=0.8), n=3).invoke(QUESTION)
    assert len(best.response_metadata["langnorm"]["selection"]["candidates"]) == 3


def test_tokens_are_counted_by_the_server(local: ChatLangNorm, remote: ChatLangNorm) -> None:
    """Of texts, of conversations and of tools."""
    messages = [HumanMessage(QUESTION), AIMessage("255"), HumanMessage("Hi!")]
    assert remote.get_num_tokens_from_messages(messages) == local.get_num_tokens_from_messages(messages)
    assert remote.get_num_tokens_from_messages(messages, [weather]) > remote.get_num_tokens_from_messages(messages)
    assert remote.get_num_tokens_from_messages([]) == 0
    assert remote.get_token_ids(QUESTION) == local.get_token_ids(QUESTION)
    for settings in ({"enable_thinking": False}, {"special_tokens": "allow"}):
        spelt: list[Any] = [HumanMessage("Say <|im_end|>.")]
        counts = [chat.model_copy(update=settings).get_num_tokens_from_messages(spelt) for chat in (local, remote)]
        assert counts[0] == counts[1] != local.get_num_tokens_from_messages(spelt)


def test_what_the_model_is_able_to(local: ChatLangNorm, remote: ChatLangNorm) -> None:
    """The server says it."""
    for ability in ("recursion", "norms", "nothing"):
        assert remote.is_able_to(ability) == local.is_able_to(ability)
    sampling = remote.model_copy(update={"temperature": None})
    assert sampling.is_sampling() == local.model_copy(update={"temperature": None}).is_sampling()
    assert remote.is_sampling() == local.is_sampling()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"temprature": 1}, "Did you mean `temperature`"),
        ({"layers": [99]}, "outside this model"),
        ({"step_splitter": lambda _: []}, "an object of this process"),
        ({"selection": {"score": lambda _: 1.0}}, "the name of a score"),
        ({"selection": {"answer": str.strip}}, '"auto", "number"'),
        ({"norm_profile": "mine.json"}, "the server's own"),
        ({"model": "other"}, "no model `other`"),
    ],
)
def test_errors_are_those_of_a_local_model(remote: ChatLangNorm, options: dict[str, Any], match: str) -> None:
    """Raised here where that can be, and else by the server."""
    kind: Any = OptionError if "model" not in options else Exception
    with pytest.raises(kind, match=match):
        remote.invoke(QUESTION, **options)
    with pytest.raises(kind, match=match):
        list(remote.stream(QUESTION, **options))


def test_there_is_no_engine_here(remote: ChatLangNorm) -> None:
    """What needs one says so."""
    for run in (remote.loaded_engine, remote.clear_prefix_cache, remote.deciding_settings):
        with pytest.raises(OptionError, match="this process has no engine"):
            run()

"""What LangChain and langgraph do with a chat model works with this one, on the bundled model."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from langnorm import ChatLangNorm, NormTrace
from langnorm.errors import OptionError


class Person(BaseModel):
    """A person."""

    name: str = Field(description="Name of the person")
    age: int = Field(ge=0, le=130)


class PersonV1(BaseModelV1):
    """A person."""

    name: str
    age: int


class PersonDict(TypedDict):
    """A person."""

    name: Annotated[str, ..., "Name of the person"]
    age: Annotated[int, ..., "Age in years"]


UNTITLED = {key: value for key, value in Person.model_json_schema().items() if key != "title"}
SCHEMAS = {
    "pydantic": Person,
    "v1": PersonV1,
    "typeddict": PersonDict,
    "json": Person.model_json_schema(),
    "untitled": UNTITLED,
}


@tool
def weather(city: str) -> str:
    """Get the weather in a city."""
    return f"It is sunny in {city}."


@pytest.fixture(scope="module")
def chat(abacus_engine: Any) -> ChatLangNorm:
    """The bundled model, greedy."""
    return ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=200)


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("kind", SCHEMAS)
def test_structured_output(chat: ChatLangNorm, kind: str, method: Any) -> None:
    """Each method takes each kind of schema, whole and streamed."""
    schema = SCHEMAS[kind]
    chain = chat.with_structured_output(schema, method=method)
    result = chain.invoke("Create a person named Anna, who is 34 years old.")
    assert isinstance(result, schema if isinstance(schema, type) and kind in ("pydantic", "v1") else dict)
    fields = result if isinstance(result, dict) else dict(result)
    assert set(fields) == {"name", "age"}
    parts = list(chain.stream("Create a person named Anna, who is 34 years old."))
    assert parts[-1] == result


def test_structured_output_with_the_raw_message(chat: ChatLangNorm) -> None:
    """The message comes along with what was made of it; what cannot be parsed is an error in its place."""
    chain = chat.with_structured_output(Person, include_raw=True)
    result = chain.invoke("Anna is 34 years old.")
    assert isinstance(result["raw"], AIMessage)
    assert isinstance(result["parsed"], Person)
    assert result["parsing_error"] is None
    assert NormTrace.from_message(result["raw"]).steps
    broken = chat.with_structured_output(Person, include_raw=True, max_tokens=16).invoke("Anna is 34 years old.")
    assert broken["parsed"] is None
    assert broken["parsing_error"] is not None


async def test_structured_output_is_asynchronous_too(chat: ChatLangNorm) -> None:
    """In batches as well."""
    chain = chat.with_structured_output(Person)
    results = await chain.abatch(["Anna is 34.", "Ben is 7."])
    assert all(isinstance(result, Person) for result in results)


CHOICES: tuple[Any, ...] = (
    "any",
    "required",
    True,
    "weather",
    {"type": "function", "function": {"name": "weather"}},
    {"type": "tool", "name": "weather"},
    {"type": "any"},
)


@pytest.mark.parametrize("choice", CHOICES)
def test_forced_calls(chat: ChatLangNorm, choice: Any) -> None:
    """Every way to say it makes the model call, also where nothing asks for a call."""
    reply = chat.bind_tools([weather], tool_choice=choice).invoke("Hello!")
    assert [call["name"] for call in reply.tool_calls] == ["weather"] * len(reply.tool_calls)
    assert reply.tool_calls
    assert all(set(call["args"]) == {"city"} for call in reply.tool_calls)


def test_no_calls(chat: ChatLangNorm) -> None:
    """Tools that must not be called are not offered."""
    reply = chat.bind_tools([weather], tool_choice="none").invoke("What is the weather in Oslo?")
    assert not reply.tool_calls
    assert reply.usage_metadata == chat.invoke("What is the weather in Oslo?").usage_metadata


def test_wrong_tools_are_refused_when_they_are_bound(chat: ChatLangNorm) -> None:
    """With what would be right."""
    with pytest.raises(OptionError, match="names no tool of this call.*Did you mean `weather`"):
        chat.bind_tools([weather], tool_choice="wether")
    with pytest.raises(OptionError, match="cannot be a tool"):
        chat.bind_tools([3])  # type: ignore[list-item]
    with pytest.raises(OptionError, match="there are no tools"):
        chat.bind_tools([], tool_choice="any")
    with pytest.raises(OptionError, match="`response_format=.*is not allowed"):
        chat.invoke("Hello!", response_format={"type": "xml"})
    with pytest.raises(OptionError, match="`method='json_shema'` is not allowed.*Did you mean `json_schema`"):
        chat.with_structured_output(Person, method="json_shema")  # type: ignore[arg-type]


def test_an_agent_calls_and_answers(chat: ChatLangNorm) -> None:
    """An agent of langchain runs to its end, every message of the model with norms, kept by a checkpointer."""
    agent: Any = create_agent(chat, [weather], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    state = agent.invoke({"messages": [HumanMessage("What is the weather in Oslo?")]}, config)
    kinds = [type(message) for message in state["messages"]]
    assert kinds[:3] == [HumanMessage, AIMessage, ToolMessage]
    assert kinds[-1] is AIMessage
    kept = agent.get_state(config).values["messages"]
    for message in kept:
        if isinstance(message, AIMessage):
            assert NormTrace.from_message(message).steps


async def test_an_agent_streams_its_calls(chat: ChatLangNorm) -> None:
    """Chunks of calls arrive in messages mode, asynchronously as well."""
    agent: Any = create_agent(chat, [weather])
    chunks = [
        message
        async for message, _ in agent.astream(
            {"messages": [HumanMessage("What is the weather in Oslo?")]}, stream_mode="messages"
        )
        if isinstance(message, AIMessageChunk)
    ]
    assert any(chunk.tool_call_chunks for chunk in chunks)


def test_an_agent_answers_in_a_schema(chat: ChatLangNorm) -> None:
    """The response format of an agent reaches the model."""
    agent: Any = create_agent(chat, [], response_format=Person)
    state = agent.invoke({"messages": [HumanMessage("Create a person named Anna, who is 34 years old.")]})
    assert isinstance(state["structured_response"], Person)


def test_settings_of_an_agents_model_arrive(chat: ChatLangNorm) -> None:
    """What is bound with tools is used."""
    reply = chat.bind_tools([weather], norms="off", max_tokens=5).invoke("Hello!")
    assert "langnorm" not in reply.response_metadata
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] <= 5


@pytest.mark.filterwarnings("ignore:.*is in beta")
@pytest.mark.parametrize("version", ["v2", "v3"])
async def test_events(chat: ChatLangNorm, version: Any) -> None:
    """Both versions of events bring the norms at the end."""
    if version == "v3":
        stream = await chat.astream_events("Hello!", version=version)
        async for _ in stream:
            pass
        message = await stream.output
    else:
        events = [event async for event in chat.astream_events("Hello!", version=version)]
        message = events[-1]["data"]["output"]
    assert message.response_metadata["langnorm"]["steps"]


def test_a_cache_tells_configurations_apart(abacus_engine: Any) -> None:
    """Equal calls are answered from it; any setting that changes the answer is another key."""
    cache = InMemoryCache()
    first = ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=30, cache=cache)
    again = first.invoke("Hello!")
    assert first.invoke("Hello!").id == again.id
    assert len(cache._cache) == 1
    others: list[dict[str, Any]] = [{"max_tokens": 2}, {"enable_thinking": False}, {"stop": ["e"]}, {"logprobs": True},
                                    {"special_tokens": "allow"}, {"recursion": {"threshold": 1.0}}]  # fmt: skip
    for number, settings in enumerate(others, 2):
        first.model_copy(update=settings).invoke("Hello!")
        assert len(cache._cache) == number
    samples = first.generate([[HumanMessage("Calculate 47 + 385 + 12.")]], n=4, temperature=1.5, stream=False)
    assert len(samples.generations[0]) == 4


def test_configurable_fields_share_the_weights(chat: ChatLangNorm) -> None:
    """A field that is set per call needs no other model."""
    chosen = chat.configurable_fields(max_tokens=ConfigurableField(id="length"))
    reply = chosen.with_config(configurable={"length": 2}).invoke("Hello!")
    assert isinstance(reply, AIMessage)
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] == 2


def test_retries_and_fallbacks(chat: ChatLangNorm) -> None:
    """A call that fails is taken over."""
    bad = chat.bind(layers=[99])
    assert bad.with_fallbacks([chat]).invoke("Hello!").content
    with pytest.raises(OptionError, match="Layer `99`"):
        bad.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).invoke("Hello!")


def test_copies_and_pickles(chat: ChatLangNorm) -> None:
    """Settings survive; weights are found again by name."""
    named = ChatLangNorm(temperature=0, max_tokens=30, recursion={"max_extra": 2}, stop=["x"])
    for copy in (pickle.loads(pickle.dumps(named)), named.model_copy(deep=True)):
        assert copy._identifying_params == named._identifying_params
        assert copy.invoke("Hello!").content == chat.invoke("Hello!", max_tokens=30, stop=["x"]).content


def test_a_rate_limiter_is_asked(abacus_engine: Any) -> None:
    """Before each call."""
    limiter = InMemoryRateLimiter(requests_per_second=1000, check_every_n_seconds=0.001)
    asked: list[bool] = []
    acquire = limiter.acquire

    def counting(*, blocking: bool = True) -> bool:
        asked.append(blocking)
        return acquire(blocking=blocking)

    limiter.acquire = counting  # type: ignore[method-assign]
    limited = ChatLangNorm(engine=abacus_engine, max_tokens=2, rate_limiter=limiter)
    limited.invoke("Hello!")
    list(limited.stream("Hello!"))
    assert len(asked) == 2


def test_abilities_are_declared(chat: ChatLangNorm) -> None:
    """Agents choose by them."""
    profile = chat.profile
    assert profile is not None
    assert profile["tool_calling"]
    assert profile["structured_output"]
    assert not profile["image_inputs"]
    assert isinstance(chat, BaseChatModel)


HISTORIES: dict[str, list[Any]] = {
    "tuples": [("system", "Be brief."), ("human", "Hello!")],
    "dicts": [{"role": "user", "content": "Hello!"}],
    "tool last": [
        HumanMessage("What is the weather in Oslo?"),
        AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": "1"}]),
        ToolMessage("sunny", tool_call_id="1"),
    ],
    "reasoning": [
        HumanMessage("Hello!"),
        AIMessage([{"type": "reasoning", "reasoning": "A greeting."}, {"type": "text", "text": "Hello!"}]),
        HumanMessage("Bye!"),
    ],
    "invalid call": [
        HumanMessage("What is the weather in Oslo?"),
        AIMessage("", invalid_tool_calls=[invalid_tool_call(name=None, args="{oops", id="1", error="no JSON")]),
        HumanMessage("That was no call. Try again."),
    ],
}  # fmt: skip


@pytest.mark.parametrize("history", HISTORIES)
def test_histories(chat: ChatLangNorm, history: str) -> None:
    """Every form that LangChain's users write is read."""
    reply = chat.bind_tools([weather]).invoke(HISTORIES[history])
    assert isinstance(reply, AIMessage)


def test_it_answers_in_a_chain_with_its_own_answers(chat: ChatLangNorm) -> None:
    """A reply goes back into a prompt as it is."""
    prompt = ChatPromptTemplate.from_messages([("human", "Hello!"), ("placeholder", "{history}"), ("human", "Bye!")])
    reply = chat.invoke("Hello!")
    assert (prompt | chat).invoke({"history": [reply]}).content


def test_streamed_json_is_valid_at_every_moment(chat: ChatLangNorm) -> None:
    """What is shown while it comes has the keys of the schema and no others."""
    chain = chat.with_structured_output(Person.model_json_schema())

    def items() -> Iterator[Any]:
        yield from chain.stream("Create a person named Anna, who is 34 years old.")

    for item in items():
        assert set(item) <= {"name", "age"}
        json.dumps(item)


def test_streamed_calls_stay_apart_from_reasoning_in_version_1() -> None:
    """A stream's blocks add up to those of the whole message: a thought, then each call."""
    chat = ChatLangNorm(temperature=0, output_version="v1").bind_tools([weather])
    question = "What is the weather in Oslo and Rome?"
    whole: Any = None
    for chunk in chat.stream(question):
        whole = chunk if whole is None else whole + chunk
    expected = chat.invoke(question)
    assert [block["type"] for block in expected.content_blocks] == ["reasoning", "tool_call", "tool_call"]
    assert whole.content_blocks[0]["reasoning"] == expected.content_blocks[0]["reasoning"]
    kept = ("type", "name", "args")
    calls = [[{key: block[key] for key in kept} for block in m.content_blocks[1:]] for m in (whole, expected)]
    assert calls[0] == calls[1]
    assert [call["args"] for call in whole.tool_calls] == [call["args"] for call in expected.tool_calls]

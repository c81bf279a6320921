"""Clients of OpenAI's own making, and LangChain's, on a real server of the bundled model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import openai
import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from pydantic import BaseModel

from langnorm import ChatLangNorm, NormTrace
from langnorm.stored_trace import TRACE
from tests.support.servers import LOOPBACK, post, question, running_server

pytestmark = LOOPBACK

ASKED: dict[str, Any] = {
    "model": "abacus",
    "temperature": 0,
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Calculate 47 + 385."}],
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def weather(city: str) -> str:
    """Get the weather in a city."""
    return f"It is sunny in {city}."


@pytest.fixture(scope="module")
def url(abacus_engine: Any) -> Iterator[str]:
    """A server of the bundled model, with a key."""
    with running_server(ChatLangNorm(engine=abacus_engine, model="abacus"), api_key="right") as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with openai.OpenAI(base_url=url, api_key="right", max_retries=0) as client:
        yield client


@pytest.fixture
def chat(abacus_engine: Any) -> ChatLangNorm:
    """The same model in this process."""
    return ChatLangNorm(engine=abacus_engine, model="abacus", temperature=0, max_tokens=200)


def test_a_whole_answer(client: openai.OpenAI, chat: ChatLangNorm) -> None:
    """Text, reasoning, usage and end are those of the chat model; of norms nothing is said that nobody asked for."""
    expected = chat.invoke("Calculate 47 + 385.")
    answer = client.chat.completions.create(**ASKED)
    (choice,) = answer.choices
    assert (answer.model, choice.finish_reason, choice.message.content) == ("abacus", "stop", expected.text)
    assert choice.message.model_extra == {"reasoning_content": expected.additional_kwargs["reasoning_content"]}
    assert expected.usage_metadata
    assert answer.usage
    assert answer.usage.total_tokens == expected.usage_metadata["total_tokens"]
    assert answer.usage.completion_tokens_details
    details = expected.usage_metadata["output_token_details"]
    assert answer.usage.completion_tokens_details.reasoning_tokens == details["reasoning"]


def test_a_streamed_answer(client: openai.OpenAI, chat: ChatLangNorm) -> None:
    """Many chunks, that together say what the whole answer does; what was found comes with the last, usage after it."""
    expected = chat.invoke("Calculate 47 + 385.")
    with client.chat.completions.create(
        **ASKED, stream=True, stream_options={"include_usage": True}, extra_body={"langnorm": {}}
    ) as stream:
        *chunks, last = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == expected.text
    reasoning = "".join((delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas)
    assert reasoning == expected.additional_kwargs["reasoning_content"]
    assert len(chunks) > 10
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [*[None] * (len(chunks) - 1), "stop"]
    assert [bool((delta.model_extra or {}).get("langnorm")) for delta in deltas].index(True) == len(deltas) - 1
    assert last.usage
    assert last.usage.total_tokens == expected.usage_metadata["total_tokens"]  # type: ignore[index]


def test_what_is_asked_of_norms_is_answered(client: openai.OpenAI) -> None:
    """The trace of the message, with its tokens; and what was done by an option that only langnorm has."""
    own = {"norms": "tokens", "layers": [3, 9], "recursion": {"max_extra": 1, "threshold": {"9": 50.0}, "layers": [9]}}
    answer = client.chat.completions.create(**ASKED, extra_body={"langnorm": own})
    found = answer.choices[0].message.model_extra["langnorm"]  # type: ignore[index]
    trace = TRACE.check(found, "The answer")
    assert answer.usage
    assert (trace.layers, trace.tokens) == ((3, 9), answer.usage.completion_tokens)
    assert trace.token_norms
    assert len(trace.token_norms) == trace.tokens - 1
    assert trace.recursion


def test_calls_and_their_results(client: openai.OpenAI) -> None:
    """A conversation with a tool goes on, whole and streamed; a call that must be made is."""
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    asked: dict[str, Any] = {**ASKED, "messages": messages, "tools": [TOOL]}
    answer = client.chat.completions.create(**asked).choices[0]
    assert answer.finish_reason == "tool_calls"
    (call,) = answer.message.tool_calls or ()
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})  # type: ignore[union-attr]
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion().choices[0].message
    assert final.tool_calls
    assert final.tool_calls[0].function.arguments == call.function.arguments  # type: ignore[union-attr]
    result = {"role": "tool", "tool_call_id": call.id, "content": "It is sunny in Oslo."}
    reply = client.chat.completions.create(**asked | {"messages": [*messages, answer.message, result]})
    assert "sunny" in (reply.choices[0].message.content or "")
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        forced = client.chat.completions.create(**ASKED, tools=[TOOL], tool_choice=choice)
        assert forced.choices[0].message.tool_calls


def test_a_schema_is_followed(client: openai.OpenAI) -> None:
    """OpenAI's `parse` makes an object of it; `json_object` is any object."""
    messages: Any = [{"role": "user", "content": "Create a person named Anna, who is 34 years old."}]
    parsed = client.chat.completions.parse(**ASKED | {"messages": messages}, response_format=Person)
    assert parsed.choices[0].message.parsed == Person(name="Anna", age=34)
    plain = client.chat.completions.create(**ASKED | {"messages": messages}, response_format={"type": "json_object"})
    assert isinstance(json.loads(plain.choices[0].message.content or ""), dict)


def test_samples_seeds_stops_and_logprobs(client: openai.OpenAI, chat: ChatLangNorm) -> None:
    """As in this process; several answers can be streamed, when all have ended."""
    options: dict[str, Any] = {"n": 3, "seed": 5, "logprobs": True, "top_logprobs": 2, "stop": ["."]}
    expected = chat.generate([[HumanMessage("Calculate 47 + 385.")]], temperature=0.9, **options).generations[0]
    texts = [generation.text for generation in expected]
    asked: dict[str, Any] = {**ASKED, **options, "temperature": 0.9}
    answer = client.chat.completions.create(**asked)
    assert [choice.message.content for choice in answer.choices] == texts
    first = answer.choices[0].logprobs
    assert first
    assert first.content
    assert len(first.content[0].top_logprobs) == 2
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_errors_are_those_of_openai(client: openai.OpenAI, url: str) -> None:
    """Each of the class that programs expect."""
    with pytest.raises(openai.BadRequestError, match="Use 0") as caught:
        client.chat.completions.create(**ASKED | {"temperature": -1})
    assert (caught.value.code, caught.value.param) == ("invalid_option", "temperature")
    with pytest.raises(openai.NotFoundError, match="Use `abacus`"):
        client.chat.completions.create(**ASKED | {"model": "gpt"})
    with (
        openai.OpenAI(base_url=url, api_key="wrong") as stranger,
        pytest.raises(openai.AuthenticationError, match="Bearer KEY"),
    ):
        stranger.models.list()
    assert client.models.list().data[0].id == "abacus"


def test_each_option_of_the_client_is_known(client: openai.OpenAI) -> None:
    """What asks for nothing is passed over, and what cannot be had is refused as that, not as a word unheard of."""
    options = {*CompletionCreateParamsBase.__annotations__, "stream"} - {"messages", "model"}
    for name in options:
        assert client.chat.completions.create(**ASKED | {"max_tokens": 1, name: None}).choices
    efforts = get_args(get_args(get_type_hints(CompletionCreateParamsBase)["reasoning_effort"])[0])
    for effort in efforts:
        assert client.chat.completions.create(**ASKED | {"max_tokens": 1}, reasoning_effort=effort).choices
    idle: dict[str, Any] = {"verbosity": "medium", "prompt_cache_options": {"ttl": "30m"}, "service_tier": "flex"}
    assert client.chat.completions.create(**ASKED | {"max_tokens": 1}, **idle).choices
    with pytest.raises(openai.BadRequestError, match="`verbosity='low'` is not allowed"):
        client.chat.completions.create(**ASKED, verbosity="low")


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_an_agent_of_langchain(url: str) -> None:
    """With OpenAI's chat model in it, and norms in what it says."""
    model = ChatOpenAI(
        base_url=url,
        api_key="right",  # type: ignore[arg-type]
        model="abacus",
        temperature=0,
        max_retries=0,
        extra_body={"langnorm": {}},
    )
    state = create_agent(model, [weather]).invoke({"messages": [HumanMessage("What is the weather in Oslo?")]})
    assert any(isinstance(message, ToolMessage) for message in state["messages"])
    assert "sunny" in state["messages"][-1].text
    person = model.with_structured_output(Person).invoke("Create a person named Anna, who is 34 years old.")
    assert person == Person(name="Anna", age=34)


def test_many_at_once(url: str, chat: ChatLangNorm) -> None:
    """Mixed requests, good and bad, each get their own answer: as alone."""
    questions = [f"Calculate {number} + {number + 7}." for number in range(10, 22)]
    expected = chat.batch(questions)
    got: dict[int, Any] = {}

    def ask(number: int) -> None:
        fields: dict[str, Any] = {"temperature": 0, "max_tokens": 200, "langnorm": {"norms": "steps"}}
        if number % 4 == 3:
            fields["langnorm"] = {"layers": [99]}
        got[number] = post(url, question(questions[number], **fields), headers={"authorization": "Bearer right"}).json()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, message in enumerate(expected):
        if number % 4 == 3:
            assert got[number]["error"]["code"] == "invalid_option"
            continue
        choice = got[number]["choices"][0]["message"]
        trace = NormTrace.from_message(message)
        assert choice["content"] == message.text
        assert choice["langnorm"]["mean"] == pytest.approx(trace.mean, rel=1e-4)

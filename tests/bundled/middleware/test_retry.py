"""The middleware flags, retries and stops in real agents on Abacus; which answers are weak, `low_below` decides."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse, wrap_model_call
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import interrupt
from pydantic import BaseModel, Field

from langnorm import ChatLangNorm, NormTrace
from langnorm.errors import OptionError, WeakReasoningError
from langnorm.middleware import NormRetryMiddleware
from tests.support.watched_chat import WatchedChat

HELLO = {"messages": [("human", "Hello!")]}
STRONG = {"low_below": 0.0, "temperature": 0}
"""Settings with which no step of the same answer is low."""


class Person(BaseModel):
    """A person."""

    name: str = Field(description="Name of the person")


calls: list[str] = []


@tool
def weather(city: str) -> str:
    """Get the weather in a city."""
    calls.append(city)
    return f"It is sunny in {city}."


@pytest.fixture(scope="module")
def chat(abacus_engine: Any) -> ChatLangNorm:
    """A greedy Abacus all of whose steps are low."""
    return ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=12, low_below=1.0)


def agent(chat: Any, *middleware: AgentMiddleware[Any, Any, Any], **options: Any) -> Any:
    """Returns an agent without tools, unless it is given some."""
    return create_agent(chat, **({"tools": [], "middleware": list(middleware)} | options))


def facts(message: Any) -> dict[str, Any]:
    """Returns what langnorm says on a message."""
    return message.response_metadata["langnorm"]


def answers(state: Any) -> list[AIMessage]:
    """Returns the answers of the model in the state of an agent."""
    return [message for message in state["messages"] if isinstance(message, AIMessage)]


def seen(agent: Any) -> list[Any]:
    """Returns what a user of messages mode sees of a run."""
    return [message for message, _ in agent.stream(HELLO, stream_mode="messages")]


class Forced(AgentMiddleware[Any, Any, Any]):
    """Makes the model call a tool, the first time in a run."""

    def wrap_model_call(self, request: ModelRequest, handler: Any) -> Any:
        """Return the answer."""
        is_answered = isinstance(request.messages[-1], ToolMessage)
        return handler(request if is_answered else request.override(tool_choice="any"))

    async def awrap_model_call(self, request: ModelRequest, handler: Any) -> Any:
        """Return the answer."""
        return await self.wrap_model_call(request, handler)


def run(agent: Any, is_async: bool, config: Any = None) -> Any:
    """Returns the state after a run."""
    return asyncio.run(agent.ainvoke(HELLO, config)) if is_async else agent.invoke(HELLO, config)


async def test_strong_answers_are_left_alone(chat) -> None:
    """They say that they are not weak."""
    strong = agent(chat.model_copy(update=STRONG), NormRetryMiddleware())
    for state in (strong.invoke(HELLO), await strong.ainvoke(HELLO)):
        assert facts(state["messages"][-1])["weak"] is False
        assert len(facts(state["messages"][-1])["attempts"]) == 1


@pytest.mark.transformers_engine
async def test_weak_answers_are_retried(chat) -> None:
    """Along the schedule, one message being kept, synchronous or not."""
    weak = agent(chat.model_copy(update={"seed": 5}), NormRetryMiddleware())
    states = [weak.invoke(HELLO), await weak.ainvoke(HELLO)]
    for state in states:
        assert [type(message) for message in state["messages"]] == [HumanMessage, AIMessage]
        found = facts(state["messages"][-1])
        assert [attempt["settings"] for attempt in found["attempts"]] == [
            {},
            {"seed": 6, "temperature": 0.7},
            {"recursion": {}, "seed": 7, "temperature": 0.7},
        ]
        assert found["weak"] is True
        assert NormTrace.from_message(state["messages"][-1]).steps
    assert states[0]["messages"][-1].content == states[1]["messages"][-1].content


def test_the_first_answer_that_is_not_weak_is_kept(chat) -> None:
    """A step may be settings or another model."""
    for step in (STRONG, chat.model_copy(update=STRONG)):
        state = agent(chat, NormRetryMiddleware(max_retries=4, escalation=[{"temperature": 0}, step])).invoke(HELLO)
        assert [attempt["kept"] for attempt in facts(state["messages"][-1])["attempts"]] == [False, False, True]
    foreign = FakeListChatModel(responses=["42"])
    state = agent(chat, NormRetryMiddleware(escalation=foreign)).invoke(HELLO)
    assert state["messages"][-1].content == "42"
    assert facts(state["messages"][-1])["weak"] is None


async def test_the_messages_mode_shows_the_kept_answer_once(chat) -> None:
    """Whole, and nothing of rejected attempts, whoever made them."""
    other = GenericFakeChatModel(messages=iter([AIMessage("forty two")] * 2))
    first, behind = chat.with_fallbacks([other]), GenericFakeChatModel(messages=iter([])).with_fallbacks([chat])
    for model, escalation in ((chat, "resample"), (chat, other), (first, "resample"), (behind, "resample")):
        weak = agent(model, NormRetryMiddleware(max_retries=1, escalation=escalation))
        streamed = [seen(weak), [message async for message, _ in weak.astream(HELLO, stream_mode="messages")]]
        for messages in streamed:
            assert [type(message) for message in messages] == [AIMessage]
            assert len(facts(messages[0])["attempts"]) == 2


def test_what_cannot_be_retried_streams_its_tokens(chat) -> None:
    """Flagged and stopped answers, calls without retries, and other models."""
    for options in ({"on_weak": "flag"}, {"on_weak": "stop"}, {"max_retries": 0}, {"run_budget": 0}):
        chunks = seen(agent(chat, NormRetryMiddleware(**options)))
        assert len(chunks) > 3
        assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
        assert len({chunk.id for chunk in chunks}) == 1
    other = GenericFakeChatModel(messages=iter([AIMessage("forty two")]))
    assert "".join(chunk.text for chunk in seen(agent(other, NormRetryMiddleware()))) == "forty two"


@pytest.mark.filterwarnings("ignore:.*experimental")
def test_events_show_the_kept_answer_once(chat) -> None:
    """In the third version of events too."""
    events = agent(chat, NormRetryMiddleware()).stream_events(HELLO, version="v3")
    messages = list(events.messages)
    assert [str(message.text) for message in messages] == [events.output["messages"][-1].text]


def test_flags_change_nothing_else(chat) -> None:
    """A weak answer says so, and is not retried."""
    message = agent(chat, NormRetryMiddleware(on_weak="flag", on_exhausted="raise")).invoke(HELLO)["messages"][-1]
    assert facts(message)["weak"] is True
    assert len(facts(message)["attempts"]) == 1


def test_messages_of_other_models_are_untouched(chat) -> None:
    """So are those without norms."""
    for model in (FakeListChatModel(responses=["a", "b"]), chat.model_copy(update={"norms": "off"})):
        state = agent(model, NormRetryMiddleware(note=True)).invoke(HELLO)
        assert len(state["messages"]) == 2
        assert "langnorm" not in state["messages"][-1].response_metadata


def test_tool_calls_are_not_retried(chat) -> None:
    """The tools run, once; they are flagged, and retried where that is asked for."""
    chat = chat.model_copy(update={"max_tokens": 60})
    for retry_tool_calls, num_attempts in ((False, 1), (True, 2)):
        middleware = NormRetryMiddleware(max_retries=1, retry_tool_calls=retry_tool_calls)
        calls.clear()
        state = agent(chat, middleware, Forced(), tools=[weather]).invoke(HELLO)
        called = answers(state)[0]
        assert called.tool_calls
        assert facts(called)["weak"] is True
        assert len(facts(called)["attempts"]) == num_attempts
        assert len(calls) == len(called.tool_calls)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_weak_call_is_stopped(chat, is_async) -> None:
    """Its tool does not run, and the history is one that any model takes."""
    calls.clear()
    chat = chat.model_copy(update={"max_tokens": 60})
    stopping = agent(chat, NormRetryMiddleware(on_weak="stop"), Forced(), tools=[weather], checkpointer=InMemorySaver())
    for number in (1, 2):
        state = run(stopping, is_async, {"configurable": {"thread_id": "1"}})
        assert len(answers(state)) == number
        called = answers(state)[-1]
        replies = state["messages"][state["messages"].index(called) + 1 :]
        assert called.tool_calls
        assert [reply.tool_call_id for reply in replies] == [call["id"] for call in called.tool_calls]
        assert {reply.status for reply in replies} == {"error"}
    assert not calls


def test_a_weak_answer_is_stopped(chat) -> None:
    """There is nothing to refuse; the run ends with it, tools or not."""
    for tools in ([], [weather]):
        state = agent(chat, NormRetryMiddleware(on_weak="stop"), tools=tools).invoke(HELLO)
        assert [type(message) for message in state["messages"]] == [HumanMessage, AIMessage]


@pytest.mark.parametrize("strategy", [ProviderStrategy, ToolStrategy])
@pytest.mark.parametrize("on_weak", ["retry", "stop"])
def test_structured_responses_survive(chat, strategy, on_weak) -> None:
    """In either strategy of langchain."""
    middleware = NormRetryMiddleware(max_retries=1, on_weak=on_weak, retry_tool_calls=True)
    model = chat.model_copy(update={"max_tokens": 120})
    state = agent(model, middleware, response_format=strategy(Person)).invoke(HELLO)
    assert isinstance(state["structured_response"], Person)
    assert len(facts(answers(state)[-1])["attempts"]) == (2 if on_weak == "retry" else 1)
    assert not [message for message in state["messages"] if getattr(message, "status", None) == "error"]


def test_exhausted_attempts(chat) -> None:
    """The last one is kept, or an error raised, where that is asked for."""
    options: dict[str, Any] = {"max_retries": 1, "escalation": {"max_tokens": 1}}
    model = chat.model_copy(update={"max_tokens": 400})
    for on_exhausted, kept in (("best", [True, False]), ("last", [False, True])):
        message = agent(model, NormRetryMiddleware(on_exhausted=on_exhausted, **options)).invoke(HELLO)["messages"][-1]
        assert [attempt["kept"] for attempt in facts(message)["attempts"]] == kept
    with pytest.raises(WeakReasoningError, match="2 attempts has 100% low"):
        agent(chat, NormRetryMiddleware(on_exhausted="raise", max_retries=1)).invoke(HELLO)


async def test_exceptions(chat, tmp_path) -> None:
    """Of the first attempt they are raised; of a retry they are recorded, and nothing is lost."""
    broken = agent(chat.model_copy(update={"layers": [99]}), NormRetryMiddleware())
    with pytest.raises(OptionError, match="Layer `99`"):
        broken.invoke(HELLO)
    with pytest.raises(OptionError, match="Layer `99`"):
        await broken.ainvoke(HELLO)
    weak = agent(chat, NormRetryMiddleware(escalation=[{"layers": [99]}]))
    for state in (weak.invoke(HELLO), await weak.ainvoke(HELLO)):
        attempts = facts(state["messages"][-1])["attempts"]
        assert [attempt["kept"] for attempt in attempts] == [True, False, False]
        assert attempts[1]["error"].startswith("OptionError: Layer `99`")
    missing = agent(chat, NormRetryMiddleware(escalation=ChatLangNorm(model=str(tmp_path))))
    for state in (missing.invoke(HELLO), await missing.ainvoke(HELLO)):
        attempts = facts(state["messages"][-1])["attempts"]
        assert [attempt.get("error", "")[:10] for attempt in attempts] == ["", "ModelError", "ModelError"]


async def test_the_event_loop_never_waits_for_what_a_retry_changes(chat) -> None:
    """What has to be known of the model for that may be on disk, or at a server."""
    watched = WatchedChat(engine=chat.engine, temperature=0, max_tokens=12, low_below=1.0)
    await agent(watched, NormRetryMiddleware(escalation="recursion")).ainvoke(HELLO)
    watched.check_asked_elsewhere()


def test_an_interrupt_of_the_graph_is_none(chat) -> None:
    """It passes through, and the run goes on from there."""

    @wrap_model_call
    def asking(request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
        if "seed" in request.model_settings:
            interrupt("May I retry?")
        return handler(request)

    weak = agent(chat, NormRetryMiddleware(), asking, checkpointer=InMemorySaver())
    state = weak.invoke(HELLO, {"configurable": {"thread_id": "1"}})
    assert state["__interrupt__"][0].value == "May I retry?"
    assert len(state["messages"]) == 1


class Second(NormRetryMiddleware):
    """A middleware of another name."""


@pytest.mark.parametrize("is_async", [False, True])
def test_a_run_has_a_budget(chat, is_async) -> None:
    """It is spent over all calls of the model, and each run has a new one, checkpointed or not."""
    middleware = NormRetryMiddleware(max_retries=1, run_budget=1, note=True)
    weak = agent(chat, middleware, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    for number in (1, 2):
        state = run(weak, is_async, config)
        assert [len(facts(answer)["attempts"]) for answer in answers(state)] == [2, 1] * number
    assert set(state) == {"messages"}
    assert set(weak.get_state(config).values) == {"messages"}


def test_subclasses_have_budgets_of_their_own(chat) -> None:
    """Two in one agent do not get into each other's way."""
    pair = (NormRetryMiddleware(run_budget=1), Second(run_budget=1))
    state = agent(chat, *pair).invoke(HELLO)
    assert len(facts(state["messages"][-1])["attempts"]) == 2
    with pytest.raises(AssertionError, match="duplicate"):
        agent(chat, NormRetryMiddleware(), NormRetryMiddleware())


@pytest.mark.parametrize("is_async", [False, True])
def test_a_note_sends_the_weak_steps_back_once(chat, is_async) -> None:
    """The weak answer says which steps were quoted; the model answers anew."""
    noting = agent(chat, NormRetryMiddleware(max_retries=1, note="Redo these:\n{steps}"), tools=[weather])
    state = run(noting, is_async)
    assert [type(message) for message in state["messages"]] == [HumanMessage, AIMessage, HumanMessage, AIMessage]
    _, weak, note, last = state["messages"]
    trace = NormTrace.from_message(weak)
    assert facts(weak)["noted"] == list(trace.low_steps)
    assert "noted" not in facts(last)
    assert note.content.startswith("Redo these:\n- ")
    assert trace.low_steps
    assert note.content.count("\n- ") == len(trace.low_steps)
    for step in (trace.steps[number] for number in trace.low_steps):
        text = weak.additional_kwargs["reasoning_content"] if step.kind == "reasoning" else weak.text
        assert f"- {text[slice(*step.text_span)].strip()}" in note.content


def test_a_note_is_seen_once(chat) -> None:
    """In messages mode both answers and the note come once each."""
    messages = seen(agent(chat, NormRetryMiddleware(max_retries=1, note=True)))
    assert [type(message) for message in messages] == [AIMessage, HumanMessage, AIMessage]
    flagged = seen(agent(chat, NormRetryMiddleware(on_weak="flag", note=True)))
    assert len({message.id for message in flagged}) == 3
    assert all(isinstance(message, AIMessageChunk | HumanMessage) for message in flagged)


def test_strong_answers_and_calls_get_no_note(chat) -> None:
    """A call is no final answer."""
    strong = agent(chat.model_copy(update=STRONG), NormRetryMiddleware(note=True))
    assert len(strong.invoke(HELLO)["messages"]) == 2
    chat = chat.model_copy(update={"max_tokens": 60})
    state = agent(chat, NormRetryMiddleware(on_weak="flag", note=True), Forced(), tools=[weather]).invoke(HELLO)
    assert [type(message) for message in state["messages"]][:3] == [HumanMessage, AIMessage, ToolMessage]


def test_tags_survive_where_settings_are_bound(chat) -> None:
    """A model that something is bound to is hidden as well."""
    assert [type(message) for message in seen(agent(chat.bind(stop=["zzz"]), NormRetryMiddleware()))] == [AIMessage]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_retries": -1}, "`max_retries=-1` is not allowed. Use an integer from 0"),
        ({"max_low_share": "x"}, "`max_low_share='x'` is not allowed"),
        ({"on_weak": "retri"}, "Did you mean `retry`"),
        ({"escalation": ["recursoin"]}, "Did you mean `recursion`"),
        ({"on_exhausted": "x"}, "`on_exhausted='x'` is not allowed"),
        ({"run_budget": -1}, "`run_budget=-1` is not allowed"),
        ({"retry_tool_calls": None}, "Use True or False"),
        ({"note": "Redo it!"}, "a text with `{steps}`"),
        ({"note": True, "on_weak": "stop"}, "ends the run"),
    ],
)
def test_wrong_options_are_refused(options, message) -> None:
    """When the middleware is made."""
    with pytest.raises(OptionError, match=message):
        NormRetryMiddleware(**options)


def test_without_langchain_there_is_a_hint() -> None:
    """It names the extra."""
    code = "import sys; sys.modules['langchain'] = None; from langnorm.middleware import NormRetryMiddleware"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert 'MissingDependencyError: Middleware needs langchain. Install it: `pip install "langnorm[agents]"`' in (
        done.stderr
    )

"""NormRetry asks Abacus again: which of its answers are weak, `low_below` decides."""

from __future__ import annotations

import asyncio
import pickle
from typing import Annotated, Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from tenacity import stop_after_attempt, stop_after_delay, wait_fixed
from typing_extensions import TypedDict

from langnorm import ChatLangNorm, NormRetry, NormSelector, NormTrace
from langnorm.errors import OptionError, WeakReasoningError
from tests.support.calls import counted_passes
from tests.support.watched_chat import WatchedChat

WEAK, STRONG = {"low_below": 1.0}, {"low_below": 0.0, "temperature": 0}
"""Settings with which every step of an answer is low, and none of a greedy one."""


@tool
def weather(city: str) -> str:
    """Get the weather in a city."""
    return f"It is sunny in {city}."


class Interrupted(FakeListChatModel):
    """A model at which somebody pressed Ctrl-C."""

    def _call(self, *args: Any, **kwargs: Any) -> str:  # noqa: ARG002
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def chat(abacus_engine: Any) -> ChatLangNorm:
    """A greedy Abacus all of whose steps are low."""
    return ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=8, **WEAK)


def attempts(message: Any) -> list[dict[str, Any]]:
    """Returns what a message says of the attempts."""
    return message.response_metadata["langnorm"]["attempts"]


def kept(message: Any) -> list[bool]:
    """Returns which attempts were kept."""
    return [attempt["kept"] for attempt in attempts(message)]


def test_strong_answers_are_not_retried(chat) -> None:
    """The message is that of the model, and says so."""
    chat.clear_prefix_cache()
    plain = chat.invoke("Hi!", **STRONG)
    chat.clear_prefix_cache()
    message = NormRetry(chat).invoke("Hi!", **STRONG)
    assert (message.text, message.usage_metadata) == (plain.text, plain.usage_metadata)
    assert NormTrace.from_message(message) == NormTrace.from_message(plain)
    assert message.response_metadata["langnorm"]["weak"] is False
    assert kept(message) == [True]


@pytest.mark.transformers_engine
def test_weak_answers_are_retried_along_the_schedule(chat) -> None:
    """Each attempt says what was changed for it."""
    message = NormRetry(chat.bind(seed=5)).invoke("Calculate 47 + 385.")
    assert [attempt["settings"] for attempt in attempts(message)] == [
        {},
        {"seed": 6, "temperature": 0.7},
        {"recursion": {}, "seed": 7, "temperature": 0.7},
    ]
    assert [attempt["low_share"] for attempt in attempts(message)] == [1.0] * 3
    assert message.response_metadata["langnorm"]["weak"] is True
    assert sum(kept(message)) == 1
    again = NormRetry(chat.bind(seed=5)).invoke("Calculate 47 + 385.")
    assert (again.content, attempts(again)) == (message.content, attempts(message))


def test_the_first_answer_that_is_not_weak_ends_it(chat) -> None:
    """No further attempt is made."""
    message = NormRetry(chat, max_attempts=5, escalation=[{"temperature": 0}, STRONG]).invoke("Hi!")
    assert kept(message) == [False, False, True]
    assert [attempt["low_share"] for attempt in attempts(message)] == [1.0, 1.0, 0.0]


def test_an_answer_that_was_cut_short_is_followed_by_a_longer_one(chat) -> None:
    """A whole answer is better than a beginning, also where both are weak."""
    retry = NormRetry(chat, max_attempts=2, escalation={"max_tokens": 400, "temperature": 0})
    message = retry.invoke("Calculate 4 + 3.", max_tokens=6)
    assert [attempt["finish_reason"] for attempt in attempts(message)] == ["length", "stop"]
    assert kept(message) == [False, True]


async def test_async_gives_what_sync_gives(chat) -> None:
    """`ainvoke`, `stream` and `astream` give the kept answer, whole."""
    retry = NormRetry(chat.bind(seed=5))
    expected = retry.invoke("Hi!")
    for message in (
        await retry.ainvoke("Hi!"),
        *retry.stream("Hi!"),
        *[message async for message in retry.astream("Hi!")],
    ):
        assert (message.content, attempts(message)) == (expected.content, attempts(expected))


@pytest.mark.transformers_engine
async def test_batches_keep_the_order_and_are_padded_batches(chat) -> None:
    """Attempts of several inputs share forward passes."""
    retry = NormRetry(chat.bind(seed=5), max_attempts=2)
    questions = ["Hi!", "Calculate 4 + 3.", "Hello!", "Bye!"]
    expected = [retry.invoke(question).content for question in questions]
    engine: Any = chat.loaded_engine()
    with counted_passes(engine.model) as passes:
        assert [message.content for message in retry.batch(questions)] == expected
        assert [message.content for message in await retry.abatch(questions)] == expected
    assert max(passes.batch_sizes) > 1
    good, bad = retry.batch(["Hi!", []], return_exceptions=True)
    assert isinstance(good, AIMessage)
    assert isinstance(bad, Exception)


def test_so_many_inputs_are_asked_at_once_as_run_together(chat) -> None:
    """By the settings of the call, those that are bound, or the model's own."""
    at_once: list[Any] = []

    class Watched(NormRetry):
        """A retry that remembers how many of it may run at once."""

        def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> AIMessage:  # noqa: A002, ARG002
            """Return nothing."""
            at_once.append(config["max_concurrency"])
            return AIMessage("")

    Watched(chat).batch(["Hi!"])
    Watched(chat.bind(max_batch_size=20)).batch(["Hi!"])
    Watched(chat.bind(max_batch_size=20)).batch(["Hi!"], max_batch_size=30)
    Watched(chat).batch(["Hi!"], {"max_concurrency": 2})
    assert at_once == [chat.max_batch_size, 20, 30, 2]


@pytest.mark.parametrize("on_exhausted", ["best", "last"])
def test_exhausted_attempts(chat, on_exhausted) -> None:
    """The last one is kept where that is asked for, even when it was cut short."""
    retry = NormRetry(chat, max_attempts=2, escalation={"max_tokens": 1}, on_exhausted=on_exhausted)
    assert kept(retry.invoke("Hi!", max_tokens=400)) == ([True, False] if on_exhausted == "best" else [False, True])


def test_exhausted_attempts_raise(chat) -> None:
    """With the best message."""
    with pytest.raises(WeakReasoningError, match="100% low steps") as error:
        NormRetry(chat, max_attempts=2, on_exhausted="raise").invoke("Hi!")
    assert len(attempts(error.value.message)) == 2


def test_tenacity_stops_and_waits(chat) -> None:
    """Its conditions come in addition to `max_attempts`."""
    assert len(attempts(NormRetry(chat, stop=stop_after_attempt(1)).invoke("Hi!"))) == 1
    assert len(attempts(NormRetry(chat, stop=stop_after_delay(1e-6), max_attempts=9).invoke("Hi!"))) == 1
    assert len(attempts(NormRetry(chat, wait=wait_fixed(0.01), max_attempts=2).invoke("Hi!"))) == 2


async def test_an_exception_of_the_first_attempt_is_raised(chat) -> None:
    """It is no weak answer."""
    with pytest.raises(OptionError, match="Layer `99`"):
        NormRetry(chat).invoke("Hi!", layers=[99])
    with pytest.raises(OptionError, match="Layer `99`"):
        await NormRetry(chat).ainvoke("Hi!", layers=[99])


async def test_an_exception_of_a_retry_loses_nothing(chat) -> None:
    """It is recorded, the next retry is made, and the best answer is kept."""
    retry = NormRetry(chat, escalation=[{"layers": [99]}, FakeListChatModel(responses=["x"])])
    for message in (retry.invoke("Hi!"), await retry.ainvoke("Hi!")):
        assert attempts(message)[1]["error"].startswith("OptionError: Layer `99`")
        assert kept(message) == [False, False, True]
    only = NormRetry(chat, escalation=[{"layers": [99]}]).invoke("Hi!")
    assert kept(only) == [True, False, False]


async def test_a_retry_whose_changes_cannot_be_told_loses_nothing(chat, tmp_path) -> None:
    """Whether another model is greedy is not known before it is loaded, which fails here."""
    retry = NormRetry(chat, escalation=ChatLangNorm(model=str(tmp_path)))
    for message in (retry.invoke("Hi!"), await retry.ainvoke("Hi!")):
        assert kept(message) == [True, False, False]
        assert [attempt["error"][:10] for attempt in attempts(message)[1:]] == ["ModelError"] * 2


async def test_the_event_loop_never_waits_for_what_a_retry_changes(chat) -> None:
    """What has to be known of the model for that may be on disk, or at a server."""
    watched = WatchedChat(engine=chat.engine, temperature=0, max_tokens=8, **WEAK)
    await NormRetry(watched, escalation="recursion").ainvoke("Hi!")
    watched.check_asked_elsewhere()


async def test_interruptions_are_no_attempts(chat) -> None:
    """What is not an `Exception` ends it at once."""
    with pytest.raises(KeyboardInterrupt):
        NormRetry(chat, escalation=[Interrupted(responses=[])]).invoke("Hi!")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(NormRetry(chat, wait=wait_fixed(60)).ainvoke("Hi!"), 2)


def test_another_model_may_answer(chat) -> None:
    """It gets the tools and what it understands of the settings, and its answer is not judged."""
    other = GenericFakeChatModel(messages=iter([AIMessage("42")] * 2))
    message = NormRetry(chat, escalation=[other]).invoke("Hi!")
    assert message.content == "42"
    assert attempts(message)[1]["settings"] == {"model": "GenericFakeChatModel"}
    assert message.response_metadata["langnorm"]["weak"] is None
    refused = NormRetry(chat, escalation=[other], retry_tool_calls=True).bind_tools([weather], tool_choice="any")
    assert attempts(refused.invoke("Hi!", max_tokens=40))[1]["error"].startswith("NotImplementedError")


def test_one_of_ours_may_answer(chat) -> None:
    """With all settings of the call but the name of the model."""
    other = chat.model_copy(update={"max_tokens": 3, "low_below": 0.0})
    message = NormRetry(chat, escalation=other).invoke("Hi!", temperature=0)
    assert [attempt["tokens"] for attempt in attempts(message)] == [8, 3]
    assert attempts(message)[1]["settings"]["model"] == chat.model


def test_messages_of_other_models_are_untouched(chat) -> None:
    """So are those without norms: nothing is retried or recorded."""
    assert NormRetry(FakeListChatModel(responses=["a", "b"])).invoke("Hi!").response_metadata == {}
    assert "langnorm" not in NormRetry(chat).invoke("Hi!", norms="off").response_metadata


def test_unknown_intensity_is_no_ground(engine_of) -> None:
    """Without a profile and with few samples nothing is retried."""
    message = NormRetry(ChatLangNorm(engine=engine_of("qwen3", seed=71), max_tokens=5)).invoke("Hi!", **WEAK)
    assert message.response_metadata["langnorm"]["weak"] is None
    assert [attempt["low_share"] for attempt in attempts(message)] == [None]


def test_tool_calls_are_not_retried(chat) -> None:
    """Unless that is asked for; tools are bound through it, and settings of a binding stay."""
    bound = NormRetry(chat.bind(max_tokens=40), max_attempts=2).bind_tools([weather], tool_choice="any")
    message = bound.invoke("What is the weather in Oslo?")
    assert message.tool_calls
    assert message.usage_metadata["output_tokens"] > 8
    assert (len(attempts(message)), message.response_metadata["langnorm"]["weak"]) == (1, True)
    retried = NormRetry(bound.llm, max_attempts=2, retry_tool_calls=True).invoke("What is the weather in Oslo?")
    assert len(attempts(retried)) == 2


def test_a_cache_gives_no_attempt_twice(abacus_engine) -> None:
    """Each retry is a new sample, and what is in the cache is not changed."""
    cache = InMemoryCache()
    hot = ChatLangNorm(engine=abacus_engine, temperature=5.0, max_tokens=20, cache=cache, **WEAK)
    first = hot.invoke("Calculate 47 + 385.")
    message = NormRetry(hot, max_attempts=4, escalation="resample", on_exhausted="last").invoke("Calculate 47 + 385.")
    assert len(cache._cache) == 4
    assert attempts(message)[0]["intensity"] == NormTrace.from_message(first).intensity
    assert len({attempt["intensity"] for attempt in attempts(message)}) > 1
    for (generation,) in cache._cache.values():
        assert "attempts" not in generation.message.response_metadata["langnorm"]  # type: ignore[attr-defined]


class Runs(BaseCallbackHandler):
    """Notes the runs that start."""

    def __init__(self) -> None:
        self.chains: dict[Any, str] = {}
        self.models: list[tuple[Any, list[str]]] = []

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Note a chain."""
        self.chains[run_id] = kwargs["name"]

    def on_chat_model_start(self, *args: Any, parent_run_id: Any, tags: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Note a chat model."""
        self.models.append((parent_run_id, tags))


async def test_attempts_are_child_runs(chat) -> None:
    """They are told apart by their tags, and hidden from langgraph's messages mode."""
    retry = NormRetry(chat, max_attempts=2, name="careful")
    for run in (retry.invoke, retry.ainvoke):
        runs = Runs()
        result = run("Hi!", {"callbacks": [runs], "tags": ["mine"]})
        await result if asyncio.iscoroutine(result) else None
        assert list(runs.chains.values()) == ["careful"]
        assert [parent in runs.chains for parent, _ in runs.models] == [True, True]
        assert [set(tags) for _, tags in runs.models] == [{f"attempt:{k}", "mine", "nostream"} for k in (1, 2)]


class State(TypedDict):
    """The state of a graph."""

    messages: Annotated[list[Any], add_messages]


def test_a_graph_streams_the_kept_answer_alone(chat) -> None:
    """Once, and nothing of rejected attempts."""
    retry = NormRetry(chat)
    graph = StateGraph(State).add_node("ask", lambda state: {"messages": [retry.invoke(state["messages"])]})
    compiled = graph.add_edge(START, "ask").compile()
    streamed = [message for message, _ in compiled.stream({"messages": [HumanMessage("Hi!")]}, stream_mode="messages")]
    assert len(streamed) == 1
    assert len(attempts(streamed[0])) == 3


@pytest.mark.filterwarnings("ignore:.*ended at `max_tokens`")  # so few tokens that any answer may
def test_it_goes_where_a_chat_model_goes(chat) -> None:
    """In chains, with settings bound, configured, copied and pickled, and around a selector."""
    retry = NormRetry(chat, max_attempts=2)
    chain = ChatPromptTemplate.from_messages([("human", "{text}")]) | retry | StrOutputParser()
    assert isinstance(chain.invoke({"text": "Hi!"}), str)
    assert list(chain.stream({"text": "Hi!"}))
    assert attempts(retry.bind(max_tokens=2).invoke("Hi!"))[0]["tokens"] == 2
    chosen = retry.configurable_fields(max_attempts=ConfigurableField(id="attempts"))
    assert len(attempts(chosen.invoke("Hi!", {"configurable": {"attempts": 1}}))) == 1
    selector = NormSelector(chat.model_copy(update={"temperature": 1.0}), n=2)
    assert len(attempts(NormRetry(selector, max_attempts=2).bind_tools([weather]).invoke("Hi!"))) == 2
    assert pickle.loads(pickle.dumps(NormRetry(ChatLangNorm(), max_low_share=0.5))).max_low_share == 0.5
    assert NormRetry(chat.with_fallbacks([chat]), max_attempts=2).invoke("Hi!")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"llm": 3}, "`llm=3` is not allowed"),
        ({"llm": ChatPromptTemplate.from_template("x") | FakeListChatModel(responses=[])}, "Wrap the model alone"),
        ({"max_low_share": 3}, "`max_low_share=3` is not allowed"),
        ({"max_attempts": 0}, "`max_attempts=0` is not allowed. Use an integer from 1"),
        ({"on_exhausted": "lst"}, "Did you mean `last`"),
        ({"escalation": ["recursoin"]}, "Did you mean `recursion`"),
        ({"stop": 3}, "`stop=3` is not allowed. Use an object of tenacity's `stop`"),
        ({"wait": 3}, "`wait=3` is not allowed"),
        ({"retry_tool_calls": 1}, "Use True or False"),
    ],
)
def test_wrong_options_are_refused(options, message) -> None:
    """When the object is made."""
    with pytest.raises(OptionError, match=message):
        NormRetry(**({"llm": FakeListChatModel(responses=[])} | options))

"""`generate` of several prompts is one padded batch, and in everything else as LangChain's."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult

from langnorm import ChatLangNorm, NormTrace
from langnorm.errors import PromptError
from tests.support.calls import counted_passes

PROMPTS: list[list[BaseMessage]] = [[HumanMessage(f"Start with {i}. Add 38. What is it?")] for i in (4, 17, 251, 60)]


class Events(BaseCallbackHandler):
    """Notes what happens to each run."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.starts: dict[Any, str] = {}
        self.ends: dict[Any, str] = {}
        self.errors: dict[Any, BaseException] = {}

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Notes the prompt of a run."""
        with self.lock:
            self.starts[run_id] = messages[0][0].content if messages[0] else ""

    def on_llm_end(self, response: LLMResult, *, run_id: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Notes its answer."""
        with self.lock:
            self.ends[run_id] = response.generations[0][0].text

    def on_llm_error(self, error: BaseException, *, run_id: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Notes its error."""
        with self.lock:
            self.errors[run_id] = error


class AsyncEvents(Events, AsyncCallbackHandler):
    """The same for asynchronous runs."""

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Notes the prompt of a run."""
        Events.on_chat_model_start(self, *args, **kwargs)

    async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Notes its answer."""
        Events.on_llm_end(self, *args, **kwargs)

    async def on_llm_error(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Notes its error."""
        Events.on_llm_error(self, *args, **kwargs)


@pytest.fixture
def chat(abacus_engine: Any) -> ChatLangNorm:
    """The bundled model, greedy."""
    return ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=30)


class Generate:
    """`generate` of a chat model, or `agenerate` behind the same face."""

    def __init__(self, name: str) -> None:
        self.is_asynchronous = name == "agenerate"

    def events(self) -> Events:
        """Returns a handler that notes what happens."""
        return AsyncEvents() if self.is_asynchronous else Events()

    async def __call__(
        self, chat: ChatLangNorm, prompts: Any, events: Events | None = None, **options: Any
    ) -> LLMResult:
        """Returns the answers."""
        options["callbacks"] = None if events is None else [events]
        if self.is_asynchronous:
            return await chat.agenerate(prompts, **options)
        return chat.generate(prompts, **options)


@pytest.fixture(params=["generate", "agenerate"])
def generate(request: pytest.FixtureRequest) -> Generate:
    """`generate` and `agenerate`."""
    return Generate(request.param)


def texts(result: LLMResult) -> list[list[str]]:
    """Returns the answers of each prompt."""
    return [[generation.text for generation in generations] for generations in result.generations]


@pytest.mark.transformers_engine
async def test_prompts_share_forward_passes(chat: ChatLangNorm, generate: Generate) -> None:
    """All of them and their samples, with the answers and traces that each has alone."""
    engine: Any = chat.loaded_engine()
    expected = [chat.generate([prompt], n=2) for prompt in PROMPTS]
    with counted_passes(engine.model) as passes:
        result = await generate(chat, PROMPTS, n=2)
    assert max(passes.batch_sizes) == 8
    assert len(passes) <= 32
    assert texts(result) == [texts(one)[0] for one in expected]
    for generations, one in zip(result.generations, expected, strict=True):
        trace, alone = (NormTrace.from_message(given[0].message) for given in (generations, one.generations[0]))  # type: ignore[union-attr]
        assert [step.mean for step in trace.steps] == [pytest.approx(step.mean, rel=1e-4) for step in alone.steps]


async def test_sampled_answers_are_those_of_each_prompt_alone(chat: ChatLangNorm, generate: Generate) -> None:
    """Whatever else is in the batch."""
    options: dict[str, Any] = {"temperature": 1.2, "seed": 5, "n": 3}
    result = await generate(chat, PROMPTS, **options)
    assert texts(result) == [texts(chat.generate([prompt], **options))[0] for prompt in PROMPTS]


async def test_every_prompt_is_a_run(chat: ChatLangNorm, generate: Generate) -> None:
    """With its own start and end; the first has the id that was given, and the result names all."""
    events, run_id = generate.events(), uuid4()
    result = await generate(chat, PROMPTS, events, run_id=run_id, tags=["tagged"])
    assert result.run
    assert [events.starts[info.run_id] for info in result.run] == [prompt[0].content for prompt in PROMPTS]
    assert [events.ends[info.run_id] for info in result.run] == [answers[0] for answers in texts(result)]
    assert result.run[0].run_id == run_id
    assert not events.errors


async def test_the_error_of_a_prompt_is_its_own(chat: ChatLangNorm, generate: Generate) -> None:
    """Its run ends with the error, the others with their answers; then the error is raised."""
    events = generate.events()
    prompts = [PROMPTS[0], [], PROMPTS[1]]
    with pytest.raises(PromptError):
        await generate(chat, prompts, events)
    assert len(events.starts) == 3
    assert [events.starts[run] for run in events.errors] == [""]
    assert sorted(events.starts[run] for run in events.ends) == sorted(str(p[0].content) for p in prompts if p)


@pytest.mark.transformers_engine
async def test_known_answers_come_from_langchains_cache(chat: ChatLangNorm, generate: Generate) -> None:
    """Only the others are generated, and kept there."""
    cached = chat.model_copy(update={"cache": InMemoryCache()})
    first = cached.generate(PROMPTS[:2])
    engine: Any = chat.loaded_engine()
    with counted_passes(engine.model) as passes:
        result = await generate(cached, PROMPTS)
    assert max(passes.batch_sizes) == 2
    assert texts(result)[:2] == texts(first)
    with counted_passes(engine.model) as passes:
        assert texts(await generate(cached, PROMPTS)) == texts(result)
    assert len(passes) == 0


def test_answers_stream_to_their_handlers(chat: ChatLangNorm) -> None:
    """With `streaming=True` each run's tokens reach the callbacks."""
    tokens: dict[Any, str] = {}

    class Tokens(BaseCallbackHandler):
        def on_llm_new_token(self, token: Any, *, run_id: Any, **kwargs: Any) -> None:  # noqa: ARG002
            tokens[run_id] = tokens.get(run_id, "") + token

    streaming = chat.model_copy(update={"streaming": True})
    result = streaming.generate(PROMPTS, callbacks=[Tokens()])
    assert [tokens[info.run_id] for info in result.run or ()] == [answers[0] for answers in texts(result)]


def test_messages_say_what_came_from_the_prefix_cache(abacus_engine: Any) -> None:
    """In the usage, as LangChain has it, and in the trace if there is one, whole or streamed."""
    chat = ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=8)
    chat.clear_prefix_cache()
    question = [HumanMessage("Start with 4. Add 38. Multiply by 3. What is it? " * 6)]
    first = chat.invoke(question)
    assert "input_token_details" not in first.usage_metadata  # type: ignore[operator]
    assert NormTrace.from_message(first).prefix_cache is None
    for message in (chat.invoke(question), list(chat.stream(question))[-1]):
        usage: Any = message.usage_metadata
        known = first.usage_metadata["input_tokens"] - 1  # type: ignore[index]
        if abacus_engine.kind == "vllm":  # which finds whole blocks of 32 tokens again
            known -= known % 32
        assert usage["input_token_details"] == {"cache_read": known}
        trace = NormTrace.from_message(message)
        assert trace.prefix_cache is not None
        assert trace.prefix_cache["tokens"] == known
        assert trace.prefix_cache["bytes"] > known
        assert NormTrace.from_json(trace.to_json()) == trace
    off = chat.invoke(question, norms="off")
    assert off.usage_metadata["input_token_details"] == {"cache_read": known}  # type: ignore[index]
    assert off.content == first.content
    chat.clear_prefix_cache()
    assert "input_token_details" not in chat.invoke(question).usage_metadata  # type: ignore[operator]


def test_clearing_loads_nothing() -> None:
    """A model that was not loaded has nothing to forget."""
    ChatLangNorm(model="/no/such/folder").clear_prefix_cache()

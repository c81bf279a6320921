"""Many requests at once: each gets what it gets alone, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langnorm import ChatLangNorm, NormProfile, NormRetry
from langnorm.errors import OptionError
from tests.support.calls import langnorm_threads, wait_until
from tests.support.gguf_files import EXACT

QUESTIONS = [
    "Calculate 47 + 385.",
    "Mia has 12 boxes with 14 pens each. She gives 39 pens to Tom. How many pens does Mia have?",
    "What is the weather in Oslo?",
    "Calculate 9 * 81.",
    "Anna is 34 years old.",
    "Sort the numbers 5, 3, 9.",
]
PERSON = {
    "title": "person",
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def weather(city: str) -> str:
    """Get the weather in a city."""
    return city


pytestmark = pytest.mark.filterwarnings("ignore:.*ended at `max_tokens`")  # 40 tokens are few


@pytest.fixture(scope="module")
def chat(abacus_file) -> ChatLangNorm:
    """Returns a chat model with room for few of the requests at a time."""
    options = EXACT | {"context_length": 1024, "chunk": 64}
    return ChatLangNorm(model=abacus_file, engine="llamacpp", engine_kwargs=options, max_tokens=40, norms="tokens")


def options_of(draw: random.Random) -> dict[str, Any]:
    """Returns options of a call, drawn at random."""
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0.8, "seed": draw.randrange(5)},
        {"temperature": 1.0, "seed": draw.randrange(5), "n": 3},
        {"stop": ["is"]},
        {"layers": "all"},
        {"logprobs": True, "top_logprobs": 2},
        {"steering": {"threshold": 12.0, "trigger": "slack", "low_k": 2}},
        {"steering": {"cos_min": 0.0}},
        {"suppression": {"threshold": 14.0}},
        {"selection": {"n": 3}, "temperature": 0.9, "seed": draw.randrange(5)},
    ]
    return draw.choice(kinds)


def ask(chat: ChatLangNorm, number: int) -> Any:
    """Returns what came of a request that the number decides."""
    draw = random.Random(number)
    question, kind = draw.choice(QUESTIONS), draw.randrange(4)
    if kind == 0:
        with closing(chat.stream(question, **options_of(draw) | {"n": 1})) as chunks:
            return "".join(str(chunk.content) for chunk in chunks)
    if kind == 1 and draw.random() < 0.5:
        return chat.with_structured_output(PERSON, include_raw=True).invoke(question)["raw"].content
    if kind == 1:
        return chat.bind_tools([weather], tool_choice="any").invoke(question).content
    generations = chat.generate([[HumanMessage(question)]], **options_of(draw)).generations[0]
    return [
        (g.message.content, g.message.response_metadata["langnorm"]["tokens"], _rounded(g.message)) for g in generations
    ]


def _rounded(message: Any) -> list[list[float]]:
    return [[round(norm, 1) for norm in row] for row in message.additional_kwargs["langnorm"]["token_norms"]]


def test_200_requests_of_16_threads_equal_the_lone_ones(chat) -> None:
    """Streams, samples, tools, schemas, interventions; the context is too small for all, so that some are sent back."""
    numbers = range(200)
    alone = [ask(chat, number) for number in numbers]
    chat.clear_prefix_cache()
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda number: ask(chat, number), numbers))
    assert [number for number in numbers if alone[number] != together[number]] == []


def test_disturbed_requests_are_nobody_elses(chat) -> None:
    """Streams that are closed, tasks that are cancelled and calls that time out end at once; others go on."""
    expected = {question: chat.invoke(question).content for question in QUESTIONS}

    async def closed(question: str) -> None:
        async with aclosing(chat.astream(question)) as chunks:
            async for _ in chunks:
                break

    async def timed_out(question: str) -> None:
        with pytest.raises(TimeoutError):
            await chat.ainvoke(question, timeout=0.001)

    async def run() -> list[Any]:
        tasks = [asyncio.ensure_future(chat.ainvoke(question)) for question in QUESTIONS * 2]
        cancelled = [asyncio.ensure_future(chat.ainvoke(question)) for question in QUESTIONS]
        others = [closed(question) for question in QUESTIONS] + [timed_out(question) for question in QUESTIONS]
        await asyncio.sleep(0.05)
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*others)
        return await asyncio.gather(*tasks)

    answers = asyncio.run(run())
    assert [answer.content for answer in answers] == [expected[question] for question in QUESTIONS * 2]
    wait_until(lambda: not langnorm_threads())


def test_calls_end_in_time(chat) -> None:
    """A timeout is kept, and the next call is answered."""
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        chat.bind(max_tokens=1500, repetition_penalty=5.0).invoke("Count to a million.", timeout=0.2)
    assert time.monotonic() - start < 10  # a busy machine is not a failure
    assert chat.invoke(QUESTIONS[0]).content


def test_memory_of_a_model_is_freed(tiny_file) -> None:
    """When nobody holds its engine any more."""
    import weakref

    from langnorm import unload
    from langnorm.engines.registry import get_engine

    engine: Any = get_engine("llamacpp", tiny_file, {}, {"num_threads": 1, "context_length": 128})
    chat = ChatLangNorm(engine=engine, max_tokens=5)
    chat.invoke("x")
    context, reference = engine._context, weakref.ref(engine)
    wait_until(lambda: not langnorm_threads())
    unload()
    del engine, chat
    gc.collect()
    assert reference() is None
    assert context._pointer is None


def test_retries_leave_out_what_llama_cpp_cannot_do(chat, monkeypatch) -> None:
    """The default escalation draws again in place of recursion; one that is asked for is refused, and says why."""
    monkeypatch.setattr("langnorm.norms.step_ranks.FEWEST_STEPS", 1)  # so short a calibration sees few
    profile = NormProfile.calibrate(chat, QUESTIONS, num_tokens=100, show_progress=False)
    weak = chat.bind(seed=5, low_below=1.0, temperature=0, max_tokens=8, profile=profile)
    message = NormRetry(weak).invoke(QUESTIONS[0])
    settings = [attempt["settings"] for attempt in message.response_metadata["langnorm"]["attempts"]]
    assert settings == [{}, {"seed": 6, "temperature": 0.7}, {"seed": 7, "temperature": 0.7}]
    with pytest.raises(OptionError, match="runs each layer once"):
        weak.invoke(QUESTIONS[0], recursion={})

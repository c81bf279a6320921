"""With `norms="tokens"` a stream shows the norms of its tokens while it goes on, in chunks and in events."""

from __future__ import annotations

from functools import reduce
from operator import add

import pytest

from langnorm import ChatLangNorm, NormTrace
from langnorm.norms.online import OnlineStatistics
from langnorm.testing import ScriptedAnswer, ScriptedEngine
from langnorm.trace import KEY

QUESTION = "What is 47 + 385?"
TEXT = "<think>\nIt is \U0001f600.\n</think>\n\nThe answer is \U0001f600 4. STOP here"


pytestmark = pytest.mark.transformers_engine
"""Numbers are compared to the last digit; llama.cpp runs a part of a known prompt again, which is rounded otherwise."""


@pytest.fixture
def chat(abacus_engine) -> ChatLangNorm:
    """The bundled model with the norms of its tokens."""
    return ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=40, norms="tokens")


def of_tokens(chunk) -> dict:
    """Returns what a message or a chunk says of single tokens."""
    return chunk.additional_kwargs.get(KEY, {})


@pytest.mark.parametrize("settings", [{}, {"layers": [3]}, {"stop": ["="]}, {"max_tokens": 1}, {"profile": None}])
def test_chunks_together_say_what_the_whole_message_says(chat, abacus_engine, monkeypatch, settings) -> None:
    """Norms, percentiles, distances, texts and ids, each of them once; most of it before the last chunk."""
    monkeypatch.setattr(abacus_engine, "statistics", OnlineStatistics(abacus_engine.num_layers))
    chunks = list(chat.stream(QUESTION, **settings))
    monkeypatch.setattr(abacus_engine, "statistics", OnlineStatistics(abacus_engine.num_layers))
    whole = chat.invoke(QUESTION, **settings)
    assert of_tokens(reduce(add, chunks)) == of_tokens(whole)
    assert NormTrace.from_message(reduce(add, chunks)) == NormTrace.from_message(whole)
    if len(chunks) > 5:
        assert len(of_tokens(chunks[-1]).get("token_norms", ())) <= 3


def test_a_chunk_has_the_norms_up_to_its_text() -> None:
    """Text waits for the norms of its tokens; tokens without text of their own come with the next chunk."""
    engine = ScriptedEngine([ScriptedAnswer(TEXT, [[float(i)] * 4 for i in range(1, 200)])] * 2)
    chat = ChatLangNorm(engine=engine, norms="tokens", layers=[1], stop=["STOP"])
    chunks = list(chat.stream("Hi"))
    texts = NormTrace.from_message(reduce(add, chunks)).token_texts
    seen, text = 0, ""
    for chunk in chunks[:-1]:
        rows = of_tokens(chunk).get("token_norms", [])
        assert [row[0] for row in rows] == list(range(seen + 1, seen + len(rows) + 1)), "in order, each of them once"
        seen += len(rows)
        text += chunk.additional_kwargs.get("reasoning_content", "") + str(chunk.content)
        shown = "".join(texts[:seen]).replace("<think>\n", "").replace("\n</think>\n\n", "")
        assert shown.startswith(text.rstrip("\n"))
    assert of_tokens(reduce(add, chunks)) == of_tokens(chat.invoke("Hi"))


def test_without_norms_of_tokens_chunks_are_as_they_were(chat) -> None:
    """No text waits, and nothing but the end speaks of norms."""
    assert not any(of_tokens(chunk) for chunk in chat.stream(QUESTION, norms="steps"))


def test_an_engine_that_streams_none_has_them_at_the_end() -> None:
    """Its text does not wait for what never comes."""

    class Quiet(ScriptedEngine):
        streams_norms = False

    chunks = list(ChatLangNorm(engine=Quiet(["One two three."]), norms="tokens").stream("Hi"))
    assert not any(of_tokens(chunk) for chunk in chunks[:-1])
    assert len(of_tokens(chunks[-1])["token_norms"]) == NormTrace.from_message(reduce(add, chunks)).tokens - 1


async def test_events_show_them(chat) -> None:
    """Those of both versions, while the answer is under way."""
    chunks = [
        event["data"]["chunk"]
        async for event in chat.astream_events(QUESTION, version="v2")
        if event["event"] == "on_chat_model_stream"
    ]
    assert sum(bool(of_tokens(chunk)) for chunk in chunks) > 5
    whole = of_tokens(await chat.ainvoke(QUESTION))
    assert of_tokens(reduce(add, chunks)) == whole


@pytest.mark.filterwarnings("ignore:.*is in beta")
async def test_events_of_version_three_have_them_on_the_message(chat) -> None:
    """Their deltas have no place for anything but text; the message has all of it."""
    stream = await chat.astream_events(QUESTION, version="v3")
    async for _ in stream:
        pass
    assert of_tokens(await stream.output) == of_tokens(await chat.ainvoke(QUESTION))

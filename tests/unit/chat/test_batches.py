"""A batch of several inputs differs from several calls in what they share, and in nothing else."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.runnables import RunnableLambda

from langnorm import ChatLangNorm
from langnorm.engines import registry
from langnorm.errors import ModelError
from langnorm.testing import ScriptedEngine

QUESTIONS = ["One?", "Two?", "Three?"]


class AnnouncedEngine(ScriptedEngine):
    """Remembers what was announced to it, and what still is."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.announced: list[int] = []
        self.num_open = 0

    @contextmanager
    def expect(self, num_requests):
        """Remembers the number."""
        self.announced.append(num_requests)
        self.num_open += 1
        yield
        self.num_open -= 1


def run(chat, questions, way: str, **options):
    """Runs a batch in one of two ways."""
    if way == "batch":
        return chat.batch(questions, **options)
    return asyncio.run(chat.abatch(questions, **options))


@pytest.mark.parametrize("way", ["batch", "abatch"])
@pytest.mark.parametrize("num_inputs", [1, 2, 3])
def test_a_model_that_does_not_load_is_an_error_of_each_input(num_inputs, way) -> None:
    """With `return_exceptions` each input has it, without it is raised, however many there are."""
    chat, questions = ChatLangNorm(model="/no/such/folder"), QUESTIONS[:num_inputs]

    results = run(chat, questions, way, return_exceptions=True)

    assert [type(result) for result in results] == [ModelError] * num_inputs
    with pytest.raises(ModelError, match="/no/such/folder"):
        run(chat, questions, way)


@pytest.mark.parametrize("way", ["batch", "abatch"])
@pytest.mark.parametrize("num_inputs", [1, 2, 3])
def test_fallbacks_answer_for_a_model_that_does_not_load(num_inputs, way) -> None:
    """They are asked for each input."""
    fallback = RunnableLambda(lambda question: f"{question} Two.")
    chat = ChatLangNorm(model="/no/such/folder").with_fallbacks([fallback])

    assert run(chat, QUESTIONS[:num_inputs], way) == [f"{question} Two." for question in QUESTIONS[:num_inputs]]


@pytest.mark.parametrize("way", ["batch", "abatch"])
def test_answers_in_a_cache_need_no_model(way, monkeypatch) -> None:
    """A batch whose answers LangChain's cache has neither loads weights nor announces anything."""
    loaded = []

    def load(*_) -> AnnouncedEngine:
        loaded.append(AnnouncedEngine(["Yes."] * 3))
        return loaded[-1]

    monkeypatch.setattr("langnorm.chat.fields.get_engine", load)
    chat = ChatLangNorm(model="some/model", cache=InMemoryCache(), temperature=0, norms="off")
    first = run(chat, QUESTIONS, way)
    assert loaded
    loaded.clear()

    again = run(chat, QUESTIONS, way)

    assert [reply.content for reply in again] == [reply.content for reply in first] == ["Yes."] * 3
    assert not loaded


@pytest.mark.parametrize("way", ["batch", "abatch"])
def test_a_batch_is_announced_once(way) -> None:
    """The engine is told how many calls will come, and the announcement ends with the batch."""
    engine = AnnouncedEngine(["Yes."] * 6)
    chat = ChatLangNorm(engine=engine, norms="off")

    run(chat, QUESTIONS, way)
    chat.invoke("Four?")
    run(chat, ["Five?"], way)

    assert engine.announced == [3]
    assert engine.num_open == 0


def test_other_chats_inside_a_batch_are_not_taken_for_its_calls() -> None:
    """What a callback asks another model is nothing that the batch's engine, or that model's, should wait for."""
    inner_engine, outer_engine = AnnouncedEngine(["No."] * 3), AnnouncedEngine(["Yes."] * 3)
    inner, outer = (ChatLangNorm(engine=engine, norms="off") for engine in (inner_engine, outer_engine))
    chain = outer | RunnableLambda(lambda reply: inner.invoke(reply.content).content)

    assert chain.batch(QUESTIONS) == ["No."] * 3
    assert (outer_engine.announced, inner_engine.announced) == ([3], [])


def test_locks_of_loading_are_not_kept() -> None:
    """A model that was looked for leaves nothing behind in the registry."""
    for number in range(20):
        with pytest.raises(ModelError):
            registry.get_engine("transformers", f"/no/such/folder/{number}", {})

    assert len(registry._locks) <= 1  # the last error's traceback may still hold its own

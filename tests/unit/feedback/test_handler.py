"""A score for each answer with norms, whatever run it came from; what a sink does never breaks the answer."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.language_models import FakeListChatModel, FakeListLLM, FakeMessagesListChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableLambda

from langnorm import NormFeedback
from langnorm.errors import OptionError
from langnorm.feedback import LangSmithSink, NormScore, NormSummary
from langnorm.testing import message_with_norms

WEAK = message_with_norms(["One.", "Two."], reasoning="Hm.", intensities=[0.05, 0.5, 0.8])
SELECTED = WEAK.model_copy(deep=True)
SELECTED.response_metadata["langnorm"]["selection"] = {"chosen": 2, "drawn": 4}


def chat_of(*messages: BaseMessage) -> FakeMessagesListChatModel:
    """Returns a chat model that says these messages in turn."""
    return FakeMessagesListChatModel(responses=list(messages))


def with_feedback(sink: Any, **options: Any) -> dict[str, Any]:
    """Returns the config of a run whose scores go to a sink."""
    return {"callbacks": [NormFeedback(sink, **options)]}


class Slow(FakeMessagesListChatModel):
    """A model that never answers."""

    async def _agenerate(self, *_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()


@pytest.fixture
def scores() -> list[NormScore]:
    """What a sink was given."""
    return []


def test_an_answer_has_a_score(scores) -> None:
    """It says of which run it is, and has the answer with its summary."""
    run_id = uuid4()
    reply = chat_of(WEAK).invoke("?", with_feedback(scores.append) | {"run_id": run_id})
    (score,) = scores
    assert (score.name, score.value, score.answer) == ("norm_intensity", pytest.approx(0.45), 0)
    assert score.run_id == score.trace_id == run_id
    assert score.message == reply
    assert score.summary == NormSummary(
        intensity=score.value, num_steps=3, num_low_steps=1, low_share=pytest.approx(1 / 3)
    )


def test_the_share_of_low_steps_can_be_the_score(scores) -> None:
    """And the score can be named."""
    chat_of(WEAK).invoke("?", with_feedback(scores.append, measure="low_share"))
    chat_of(WEAK).invoke("?", with_feedback(scores.append, measure="low_share", name="weakness"))
    assert [(score.name, score.value) for score in scores] == [
        ("norm_low_share", pytest.approx(1 / 3)),
        ("weakness", pytest.approx(1 / 3)),
    ]


@pytest.mark.parametrize(
    ("message", "words", "fields"),
    [
        (WEAK, "intensity 0.45, 1 of 3 steps low", {"intensity", "num_steps", "num_low_steps", "low_share"}),
        (
            SELECTED,
            "intensity 0.45, 1 of 3 steps low, chosen from 4 candidates",
            {"intensity", "num_steps", "num_low_steps", "low_share", "chosen", "num_candidates"},
        ),
        (message_with_norms("One.", intensities=None), "intensity unknown", {"num_steps"}),
        (message_with_norms("One.", low=[None]), "intensity 0.50", {"num_steps", "intensity"}),
    ],
)
def test_a_summary_says_what_is_known(message, words, fields) -> None:
    """In words and as plain JSON; None where it is not known."""
    summary = NormSummary.from_message(message)
    assert summary is not None
    assert str(summary) == words
    assert set(summary.to_dict()) == fields
    assert summary.to_dict().get("chosen") == (2 if message is SELECTED else None)


def test_low_steps_of_which_some_are_unknown() -> None:
    """The share is of those that are known, as for retries."""
    summary = NormSummary.from_message(message_with_norms(["a", "b", "c"], low=[True, None, False]))
    assert summary is not None
    assert (summary.num_low_steps, summary.low_share) == (1, 0.5)


@pytest.mark.parametrize(
    "model",
    [
        chat_of(AIMessage("of another model")),
        chat_of(AIMessage("norms off", response_metadata={"langnorm": {"recursion": {}}})),
        chat_of(message_with_norms("unknown", intensities=None)),
        chat_of(message_with_norms("")),
        FakeListChatModel(responses=["plain"]),
        FakeListLLM(responses=["no chat model"]),
    ],
)
def test_answers_without_a_score_are_left_alone(model, scores) -> None:
    """Quietly: those of other models, those without norms, and those of which nothing is known."""
    model.invoke("?", with_feedback(scores.append, measure="low_share", raise_error=True))
    assert scores == []


async def test_runs_of_any_kind_have_scores(scores) -> None:
    """Sync and async, one and many, streamed and whole; a chain is the outermost run of its model's."""
    chat = chat_of(WEAK)
    config = with_feedback(scores.append)
    chain = RunnableLambda(lambda text: text) | chat
    await chat.ainvoke("?", config)
    chat.batch(["a", "b"], config)
    await chat.abatch(["a", "b"], config)
    assert len(list(chat.stream("?", config))) == len([chunk async for chunk in chat.astream("?", config)])
    assert len(scores) == 7
    assert all(score.trace_id == score.run_id for score in scores)
    scores.clear()
    run_id = uuid4()
    chain.invoke("?", config | {"run_id": run_id})
    await chain.ainvoke("?", config | {"run_id": run_id})
    assert [score.trace_id for score in scores] == [run_id, run_id]
    assert run_id not in [score.run_id for score in scores]
    assert config["callbacks"][0]._roots == {}


def test_runs_that_fail_leave_nothing(scores) -> None:
    """They have no score, and are forgotten."""

    def fail(_: str) -> str:
        msg = "no"
        raise ValueError(msg)

    config = with_feedback(scores.append)
    for chain in (RunnableLambda(fail) | chat_of(WEAK), FakeListChatModel(responses=["abc"], error_on_chunk_number=1)):
        with pytest.raises(Exception):  # noqa: B017, PT011
            list(chain.stream("?", config))
    assert (scores, config["callbacks"][0]._roots) == ([], {})


async def test_runs_that_are_cancelled_leave_nothing(scores) -> None:
    """As of a server whose clients go away."""
    config, slow = with_feedback(scores.append), Slow(responses=[WEAK])
    for chain in (slow, RunnableLambda(lambda text: text) | slow):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(chain.ainvoke("?", config), 0.2)
    assert (scores, config["callbacks"][0]._roots) == ([], {})


def test_a_model_with_the_handler_does_not_know_the_chain(scores) -> None:
    """The outermost run is then None, for nobody has told the handler."""
    chat = FakeMessagesListChatModel(responses=[WEAK], callbacks=[NormFeedback(scores.append)])
    (RunnableLambda(lambda text: text) | chat).invoke("?")
    assert scores[0].trace_id is None


def test_several_answers_of_one_run(scores) -> None:
    """Each has a score, with its place among them."""
    answers = [WEAK, AIMessage("of another model"), message_with_norms("Strong.", intensities=0.9)]
    result = LLMResult(generations=[[ChatGeneration(message=message) for message in answers]])
    NormFeedback(scores.append).on_llm_end(result, run_id=uuid4())
    assert [(score.answer, round(score.value, 2)) for score in scores] == [(0, 0.45), (2, 0.9)]


async def test_errors_of_a_sink_are_logged(caplog) -> None:
    """And the answer comes all the same, unless they are to end the run."""

    def fail(_: NormScore) -> None:
        msg = "the sink is full"
        raise RuntimeError(msg)

    with caplog.at_level(logging.WARNING):
        assert chat_of(WEAK).invoke("?", with_feedback(fail)).content == "One.Two."
        assert (await chat_of(WEAK).ainvoke("?", with_feedback(fail))).content == "One.Two."
    assert [("the sink is full" in record.message) for record in caplog.records] == [True, True]
    with pytest.raises(RuntimeError, match="full"):
        chat_of(WEAK).invoke("?", with_feedback(fail, raise_error=True))
    with pytest.raises(RuntimeError, match="full"):
        await chat_of(WEAK).ainvoke("?", with_feedback(fail, raise_error=True))


def test_a_trace_that_is_not_sound_breaks_no_answer(caplog) -> None:
    """Somebody else may have written it."""
    broken = AIMessage("x", response_metadata={"langnorm": {"version": 1, "steps": "none"}})
    assert chat_of(broken).invoke("?", with_feedback(print)).content == "x"
    assert "no sound" in caplog.text or "is not a trace" in caplog.text


async def async_sink(_: NormScore) -> None:
    """A sink that nobody would wait for."""


class AsyncSink:
    """Another one."""

    async def __call__(self, score: NormScore) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sink": None}, "a function that takes a score"),
        ({"sink": "langsmith"}, "a function that takes a score"),
        ({"sink": LangSmithSink}, r"LangSmithSink\(\)"),
        ({"sink": async_sink}, "not async"),
        ({"sink": partial(async_sink)}, "not async"),
        ({"sink": AsyncSink()}, "not async"),
        ({"sink": print, "measure": "intensty"}, "Did you mean `intensity`"),
        ({"sink": print, "name": ""}, "`name=''`"),
        ({"sink": print, "raise_error": 1}, "True or False"),
        ({"sink": print, "run_inline": "yes"}, "True or False"),
    ],
)
def test_options_are_checked(options, said) -> None:
    """Before there is a run; the error says what is allowed."""
    with pytest.raises(OptionError, match=said):
        NormFeedback(**options)


def test_sinks_say_whether_they_are_quick() -> None:
    """Then async runs call them on their own thread, unless the user says otherwise."""

    class Quick:
        is_quick = True

        def __call__(self, score: NormScore) -> None:
            """Do nothing."""

    assert NormFeedback(Quick()).run_inline
    assert not NormFeedback(Quick(), run_inline=False).run_inline
    assert not NormFeedback(print).run_inline
    assert NormFeedback(print, run_inline=True).run_inline

"""What people who look at runs see of norms: in what LangChain's tracers write down, and as scores, on Abacus."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run

from langnorm import ChatLangNorm, NormFeedback, NormRetry, NormTrace
from langnorm.feedback import NormScore

QUESTION = "Calculate 47 + 385."
OTHER = "What is 3 + 4?"


class Tracer(BaseTracer):
    """Keeps the runs of chat models as tracers such as LangSmith's write them down."""

    def __init__(self) -> None:
        super().__init__(_schema_format="original+chat")
        self.llm_runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        """Do nothing with the outermost one."""

    def _on_llm_end(self, run: Run) -> None:
        self.llm_runs.append(run)


@pytest.fixture(scope="module")
def chat(abacus_engine: Any) -> ChatLangNorm:
    """A greedy Abacus."""
    return ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=200)


@pytest.fixture
def scores() -> list[NormScore]:
    """What a sink was given."""
    return []


@pytest.fixture
def config(scores) -> dict[str, Any]:
    """Of runs whose scores go there; errors are not hidden."""
    return {"callbacks": [NormFeedback(scores.append, raise_error=True)]}


def written(run: Run) -> dict[str, Any]:
    """Returns what is written down of the norms of a run's answer."""
    outputs = json.loads(json.dumps(run.outputs, allow_nan=False))
    facts: dict[str, Any] = outputs["generations"][0][0]["message"]["kwargs"]["response_metadata"]["langnorm"]
    return facts


async def test_tracers_write_the_summary_down(chat) -> None:
    """Whole and streamed, sync and async: where LangSmith and Phoenix show the outputs of a run, the norms are."""
    tracer = Tracer()
    config = {"callbacks": [tracer]}
    reply = chat.invoke(QUESTION, config)
    list(chat.stream(QUESTION, config))
    assert [chunk async for chunk in chat.astream(QUESTION, config)]
    assert [written(run) for run in tracer.llm_runs] == [reply.response_metadata["langnorm"]] * 3
    assert written(tracer.llm_runs[0])["intensity"] is not None
    assert written(tracer.llm_runs[0])["low_steps"] == list(NormTrace.from_message(reply).low_steps or ())


def test_tracers_write_the_choice_down(chat, scores, config) -> None:
    """Of a selection; its run has one score, that of the answer which was chosen."""
    tracer = Tracer()
    selecting = chat.with_selection(n=3).bind(temperature=1.0, seed=0)
    reply = selecting.invoke(QUESTION, {"callbacks": [tracer, *config["callbacks"]]})
    (score,) = scores
    chosen = written(tracer.llm_runs[0])["selection"]["chosen"]
    assert (score.summary.chosen, score.summary.num_candidates) == (chosen, 3)
    assert score.value == NormTrace.from_message(reply).intensity


async def test_scores_are_those_of_the_answers(chat, scores, config) -> None:
    """In streams, batches and async runs."""
    first, second = (NormTrace.from_message(chat.invoke(text)).intensity for text in (QUESTION, OTHER))
    list(chat.stream(QUESTION, config))
    assert [chunk async for chunk in chat.astream(QUESTION, config)]
    assert [score.value for score in scores] == [first, first]
    scores.clear()
    whole = chat.batch([QUESTION, OTHER], config)
    awaited = await chat.abatch([QUESTION, OTHER], config)
    for replies, of_batch in ((whole, scores[:2]), (awaited, scores[2:])):
        by_id = {score.message.id: score.value for score in of_batch}
        assert [by_id[reply.id] for reply in replies] == pytest.approx([first, second], abs=1e-3)


def test_each_of_n_answers_has_a_score(chat, scores, config) -> None:
    """On the run that they have in common."""
    result = chat.generate([[HumanMessage(QUESTION)]], callbacks=config["callbacks"], n=3, temperature=1.0, seed=0)
    traces = [NormTrace.from_message(generation.message) for generation in result.generations[0]]
    assert [(score.answer, score.value) for score in scores] == list(enumerate(trace.intensity for trace in traces))
    assert len({score.run_id for score in scores}) == 1


def test_without_norms_there_is_no_score(chat, scores, config) -> None:
    """And the answer is as it was."""
    assert chat.invoke(QUESTION, config, norms="off").text == chat.invoke(QUESTION).text
    assert scores == []


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_answers_of_an_agent_have_scores(chat, scores, config, is_streamed) -> None:
    """Each turn of its model, on the model's run inside the agent's."""

    @tool
    def weather(city: str) -> str:
        """Get the weather in a city."""
        return f"It is sunny in {city}."

    agent = create_agent(chat, [weather])
    inputs: Any = {"messages": [("human", "What is the weather in Oslo?")]}
    if is_streamed:
        updates = [update for update in agent.stream(inputs, config, stream_mode="updates") if "model" in update]
        replies = [message for update in updates for message in update["model"]["messages"]]
    else:
        replies = [message for message in agent.invoke(inputs, config)["messages"] if message.type == "ai"]
    assert len(replies) > 1
    assert [score.message.id for score in scores] == [reply.id for reply in replies]
    assert [score.value for score in scores] == [NormTrace.from_message(reply).intensity for reply in replies]
    (trace_id,) = {score.trace_id for score in scores}
    assert trace_id is not None
    assert trace_id not in {score.run_id for score in scores}


def test_every_attempt_has_a_score(chat, scores, config) -> None:
    """Each is a run of the model."""
    reply = NormRetry(chat, max_low_share=0.0, max_attempts=2).invoke(QUESTION, config, low_below=1.0)
    shares = [attempt["low_share"] for attempt in reply.response_metadata["langnorm"]["attempts"]]
    assert [score.summary.low_share for score in scores] == shares
    assert len(shares) == 2

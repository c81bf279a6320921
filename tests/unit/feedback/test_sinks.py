"""Scores come to the message, to OpenTelemetry's SDK and to LangSmith's client as their readers expect them."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import re
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import pytest
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers import LangChainTracer
from langchain_core.tracers.context import tracing_v2_enabled
from langsmith import tracing_context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from langnorm import NormFeedback
from langnorm.errors import MissingDependencyError, OptionError
from langnorm.feedback import LangSmithSink, MessageSink, OpenTelemetrySink
from langnorm.testing import message_with_norms
from tests.support.langsmith import PROJECT_ID, running_langsmith
from tests.support.servers import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import Tracer

pytestmark = LOOPBACK

SUMMARY = {"intensity": 0.25, "num_steps": 2, "num_low_steps": 1, "low_share": 0.5}
WORDS = "intensity 0.25, 1 of 2 steps low"


def weak() -> BaseMessage:
    """Returns a message with a low step."""
    return message_with_norms(["One.", "Two."], intensities=[0.0, 0.5])


def ask(*callbacks: Any, message: BaseMessage | None = None) -> BaseMessage:
    """Returns what a model with these callbacks answers."""
    return FakeMessagesListChatModel(responses=[message or weak()]).invoke("?", {"callbacks": list(callbacks)})


class Spans:
    """What a tracing application has set up."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def tracer(self) -> Tracer:
        """The application's tracer."""
        return self.provider.get_tracer("application")


@pytest.fixture
def logs() -> Iterator[tuple[LoggerProvider, InMemoryLogRecordExporter]]:
    """A provider of loggers, and what came of them."""
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


def test_a_message_can_carry_its_summary() -> None:
    """Beside what else its `additional_kwargs` have."""
    message = weak()
    message.additional_kwargs["other"] = 1
    reply = ask(NormFeedback(MessageSink()), message=message)
    assert reply.additional_kwargs == {"other": 1, "langnorm_summary": SUMMARY}
    json.dumps(reply.additional_kwargs, allow_nan=False)


def test_an_event_is_a_log_record(logs) -> None:
    """Named and with the attributes of the semantic conventions, in the span that is current."""
    provider, exporter = logs
    sink = OpenTelemetrySink(logger_provider=provider)
    with Spans().tracer.start_as_current_span("request") as span:
        reply = ask(NormFeedback(sink))
    (data,) = exporter.get_finished_logs()
    record = data.log_record
    assert record.event_name == "gen_ai.evaluation.result"
    assert (record.trace_id, record.span_id) == (span.get_span_context().trace_id, span.get_span_context().span_id)
    attributes = dict(record.attributes or {})
    assert re.fullmatch(r"[\da-f-]{36}", str(attributes.pop("langnorm.run_id")))
    assert attributes == {
        "gen_ai.evaluation.name": "norm_intensity",
        "gen_ai.evaluation.score.value": 0.25,
        "gen_ai.evaluation.explanation": WORDS,
        "gen_ai.response.id": reply.id,
        **{f"langnorm.{name}": value for name, value in SUMMARY.items()},
    }
    assert data.instrumentation_scope is not None
    assert data.instrumentation_scope.name == "langnorm"


async def test_async_runs_keep_the_current_span(logs) -> None:
    """For the sink is called where the run is."""
    provider, exporter = logs
    chat = FakeMessagesListChatModel(responses=[weak()])
    for run_inline in (True, False):
        handler = NormFeedback(OpenTelemetrySink(logger_provider=provider), run_inline=run_inline)
        with Spans().tracer.start_as_current_span("request") as span:
            await chat.ainvoke("?", {"callbacks": [handler]})
        assert exporter.get_finished_logs()[-1].log_record.span_id == span.get_span_context().span_id


def test_an_event_can_be_put_on_the_span() -> None:
    """For tools that take spans alone."""
    spans = Spans()
    with spans.tracer.start_as_current_span("request"):
        ask(NormFeedback(OpenTelemetrySink("span")))
    (span,) = spans.exporter.get_finished_spans()
    assert [event.name for event in span.events] == ["gen_ai.evaluation.result"]
    assert dict(span.events[0].attributes or {})["gen_ai.evaluation.score.value"] == 0.25


def test_an_instrumentation_can_name_the_span(logs) -> None:
    """The span of the run need not be the current one; where there is none of the run, that one has the event."""
    provider, exporter = logs
    spans = Spans()
    of_run = spans.tracer.start_span("chat")
    asked: list[Any] = []

    def find_span(run_id: Any) -> Any:
        asked.append(run_id)
        return of_run if len(asked) == 1 else None

    sink = OpenTelemetrySink(find_span=find_span, logger_provider=provider)
    with spans.tracer.start_as_current_span("request") as current:
        ask(NormFeedback(sink))
        ask(NormFeedback(sink))
    ids = [data.log_record.span_id for data in exporter.get_finished_logs()]
    assert ids == [of_run.get_span_context().span_id, current.get_span_context().span_id]
    run_ids = [(data.log_record.attributes or {})["langnorm.run_id"] for data in exporter.get_finished_logs()]
    assert run_ids == [str(run_id) for run_id in asked]


def test_no_provider_is_no_error() -> None:
    """An application that has set up none has no events, and its answers."""
    assert ask(*(NormFeedback(OpenTelemetrySink(form), raise_error=True) for form in ("log", "span"))).text


def test_feedback_goes_along_with_the_runs() -> None:
    """A LangSmith of today has feedback and runs in one upload, which no answer waits for."""
    with running_langsmith() as stub:
        tracer = LangChainTracer(client=stub.client, project_name="p")
        reply = ask(NormFeedback(LangSmithSink(stub.client, project="p"), raise_error=True), tracer)
        stub.client.flush(5)
        sent = b"".join(stub.bodies("/runs/multipart"))
    assert stub.bodies("/feedback") == []
    (body,) = re.findall(rb'name="feedback\.[^"]+".*?\r\n\r\n(\{.*?\})\r\n--', sent, re.DOTALL)
    feedback = json.loads(body)
    assert (feedback["key"], feedback["score"], feedback["comment"]) == ("norm_intensity", 0.25, WORDS)
    assert reply.id == f"lc_run--{feedback['run_id']}-0"
    assert feedback["trace_id"] == feedback["run_id"]
    assert feedback["session_id"] == str(PROJECT_ID)
    assert feedback["feedback_source"]["metadata"] == {"langnorm": SUMMARY, "answer": 0}


def test_feedback_of_a_model_in_a_chain() -> None:
    """It is the model's, which a handler of the model alone sends at once, without knowing the chain."""
    with running_langsmith() as stub:
        handler = NormFeedback(LangSmithSink(stub.client, project="p"), raise_error=True)
        model = FakeMessagesListChatModel(responses=[weak()], callbacks=[handler])
        reply = (RunnableLambda(lambda text: text) | model).invoke("?")
        (body,) = stub.bodies("/feedback")
    feedback = json.loads(body)
    assert "trace_id" not in feedback
    assert reply.id == f"lc_run--{feedback['run_id']}-0"


def test_the_project_is_asked_for_once(monkeypatch) -> None:
    """By the name that LangChain traces to; it may be made by this very run."""
    monkeypatch.setenv("LANGSMITH_PROJECT", "mine")
    from langsmith.utils import get_env_var

    get_env_var.cache_clear()
    with running_langsmith(num_unknown=1, version="0.5.0") as stub:
        handler = NormFeedback(LangSmithSink(stub.client), raise_error=True)
        ask(handler)
        ask(handler)
        asked = [path for _, path, _ in stub.requests]
    get_env_var.cache_clear()
    assert asked.count("/sessions") == 2
    assert [json.loads(body)["session_id"] for body in stub.bodies("/feedback")] == [str(PROJECT_ID)] * 2


def test_answers_do_not_wait_for_a_langsmith_that_fails(caplog, monkeypatch) -> None:
    """It is not asked again for a while; what is logged says why there is no score."""
    now = 1000.0
    monkeypatch.setattr("langnorm.feedback.sinks.time.monotonic", lambda: now)
    with running_langsmith(status=403) as stub, caplog.at_level(logging.WARNING):
        handler = NormFeedback(LangSmithSink(stub.client, project="p"))
        assert ask(handler).text == ask(handler).text == "One.Two."
        num_asked = len(stub.bodies("/sessions"))
        assert "could not name its project `p`" in caplog.text
        now += 61
        stub.status = 200
        ask(handler)
        assert len(stub.bodies("/sessions")) == num_asked + 1
    assert num_asked == 1


def test_the_client_is_that_of_langchain(monkeypatch) -> None:
    """Which is made when there is a score, not before."""
    made = []

    def make() -> Any:
        made.append(stub.client)
        return stub.client

    monkeypatch.setattr("langsmith.run_trees.get_cached_client", make)
    sink = LangSmithSink(project="p")
    assert made == []
    with running_langsmith(version="0.5.0") as stub:
        ask(NormFeedback(sink, raise_error=True))
        assert len(stub.bodies("/feedback")) == 1


class Sent:
    """A client that remembers into which project each score was sent."""

    def __init__(self) -> None:
        self.projects: list[UUID] = []

    def read_project(self, *, project_name: str) -> Any:
        """Returns a project."""
        return SimpleNamespace(id=id_of(project_name))

    def create_feedback(self, *_: Any, session_id: UUID, **__: Any) -> None:
        """Remembers."""
        self.projects.append(session_id)

    def create_run(self, **_: Any) -> None:
        """Takes a run."""

    update_run = create_run


def id_of(project: str) -> UUID:
    """Returns the id of a project."""
    return uuid5(PROJECT_ID, project)


def test_scores_go_where_the_runs_go() -> None:
    """Into the project that LangChain traces to at that time, by its client, unless given others."""
    own, others = Sent(), Sent()
    handler = NormFeedback(LangSmithSink(own), raise_error=True)  # type: ignore[arg-type]
    with tracing_context(project_name="a", enabled=False):
        ask(handler)
    with tracing_context(project_name="b", enabled=False):
        ask(handler)
        ask(NormFeedback(LangSmithSink(own, project="mine"), raise_error=True))  # type: ignore[arg-type]
    assert own.projects == [id_of("a"), id_of("b"), id_of("mine")]
    handler = NormFeedback(LangSmithSink(), raise_error=True)
    with tracing_context(project_name="a", client=others, enabled=False):  # type: ignore[arg-type]
        ask(handler)
    with tracing_v2_enabled("b", client=others):  # type: ignore[arg-type]
        ask(handler)
    chain = RunnableLambda(lambda text: text) | FakeMessagesListChatModel(responses=[weak()])
    with tracing_v2_enabled("b", client=others):  # type: ignore[arg-type]
        chain.invoke("?", {"callbacks": [handler, LangChainTracer(project_name="c", client=others)]})  # type: ignore[arg-type]
    assert others.projects == [id_of("a"), id_of("b"), id_of("c")]


def test_sinks_are_copied() -> None:
    """With the options that hold them; a copy sends by the same client."""
    client = Sent()
    for handler in (copy.copy(found := NormFeedback(LangSmithSink(client, project="p"))), copy.deepcopy(found)):  # type: ignore[arg-type]
        ask(handler)
    assert client.projects == [id_of("p")] * 2
    for sink in (LangSmithSink(project="p"), MessageSink(), OpenTelemetrySink()):
        assert type(pickle.loads(pickle.dumps(sink))) is type(copy.deepcopy(sink)) is type(sink)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: OpenTelemetrySink("spans"), "Did you mean `span`"),  # type: ignore[arg-type]
        (lambda: OpenTelemetrySink(find_span=3), "returns its span"),  # type: ignore[arg-type]
        (lambda: LangSmithSink("key"), "langsmith.Client"),  # type: ignore[arg-type]
        (lambda: LangSmithSink(project=""), "name of a project"),
    ],
)
def test_options_are_checked(build, said) -> None:
    """The error says what is allowed."""
    with pytest.raises(OptionError, match=said):
        build()


@pytest.mark.parametrize(
    ("module", "sink", "extra"),
    [
        ("opentelemetry._logs", OpenTelemetrySink, r"langnorm\[otel\]"),
        ("langsmith.run_trees", LangSmithSink, r"langnorm\[langsmith\]"),
    ],
)
def test_a_package_that_is_missing(module, sink, extra, monkeypatch) -> None:
    """Is named by the error, with what installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=extra):
        sink()

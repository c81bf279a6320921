"""Where scores go: onto the message itself, to OpenTelemetry, to LangSmith.

A sink is called with a `NormScore`. One with `is_quick = True` neither waits nor computes, so that async runs may call
it on their own thread.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from langnorm.checks import check_choice, refuse
from langnorm.errors import MissingDependencyError

if TYPE_CHECKING:
    from uuid import UUID

    from langsmith import Client
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.trace import Span

    from langnorm.feedback.score import NormScore

SUMMARY_KEY = "langnorm_summary"
"""Where `MessageSink` puts the summary in `additional_kwargs`."""

EVENT_NAME = "gen_ai.evaluation.result"
"""OpenTelemetry's event for the result of an evaluation (semantic conventions for generative AI, events)."""

_ATTEMPTS = 3  # of a request to LangSmith: a run may come there a moment after its score
_FLUSH = 5.0  # seconds to wait for runs to come there
_PAUSE = 60.0  # seconds in which a LangSmith that has failed is not asked again: answers would wait for it

EventForm = Literal["log", "span"]

_Place = tuple["Client", str | None]  # by which client, and into which project


class MessageSink:
    """Puts the summary of an answer into its `additional_kwargs`, under `langnorm_summary`.

    For tools that keep these of a message, but not its `response_metadata`, such as Langfuse. Its handler has to come
    before theirs in `callbacks`.
    """

    is_quick = True

    def __call__(self, score: NormScore) -> None:
        """Put it there."""
        message = score.message
        message.additional_kwargs = message.additional_kwargs | {SUMMARY_KEY: score.summary.to_dict()}


class OpenTelemetrySink:
    """Emits a score as an event `gen_ai.evaluation.result`, in the span of the run or else the current one.

    It needs the extra `otel`, and a provider that the application has set up.

    Its attributes are those of the semantic conventions, `gen_ai.evaluation.name`, `gen_ai.evaluation.score.value`,
    `gen_ai.evaluation.explanation` and `gen_ai.response.id`, with the summary and the run's id under `langnorm.`.

    Args:
        form: `"log"` emits a log record, which is what events are and what the conventions ask for; it carries the ids
            of the span. `"span"` adds the event to the span itself, for tools that take spans alone; where none is
            being recorded it is lost.
        find_span: A function that takes the run's id and returns its span, or None. Instrumentations that make spans of
            runs need not make them current; OpenInference's is `LangChainInstrumentor().get_span`.
        logger_provider: Whose logger emits log records; None takes the global one.

    Raises:
        MissingDependencyError: OpenTelemetry is not installed.
        OptionError: A value is not allowed.
    """

    is_quick = True

    def __init__(
        self,
        form: EventForm = "log",
        *,
        find_span: Callable[[UUID], Span | None] | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        check_choice("form", form, get_args(EventForm))
        if find_span is not None and not callable(find_span):
            refuse("find_span", find_span, "a function that takes the id of a run and returns its span")
        try:
            from opentelemetry._logs import get_logger
        except ImportError as error:
            msg = 'Events of OpenTelemetry need its API. Install it: `pip install "langnorm[otel]"`.'
            raise MissingDependencyError(msg) from error
        self.form = form
        self._find_span = find_span
        self._logger = get_logger("langnorm", logger_provider=logger_provider)

    def __call__(self, score: NormScore) -> None:
        """Emit the event."""
        from opentelemetry.trace import get_current_span, set_span_in_context

        span = (self._find_span(score.run_id) if self._find_span else None) or get_current_span()
        attributes: dict[str, str | int | float] = {
            "gen_ai.evaluation.name": score.name,
            "gen_ai.evaluation.score.value": float(score.value),
            "gen_ai.evaluation.explanation": str(score.summary),
            "langnorm.run_id": str(score.run_id),
        }
        if score.message.id:
            attributes["gen_ai.response.id"] = score.message.id
        attributes |= {f"langnorm.{name}": value for name, value in score.summary.to_dict().items()}
        if self.form == "log":
            self._logger.emit(event_name=EVENT_NAME, attributes=attributes, context=set_span_in_context(span))
        else:
            span.add_event(EVENT_NAME, attributes)


class LangSmithSink:
    """Sends a score to LangSmith as feedback on the run of the chat model, which has to be traced there.

    It needs the extra `langsmith`. The score goes along with the runs, in the background, where the outermost run is
    known, which it is when the handler is among the `callbacks` of the whole chain; else the answer waits for it.
    LangSmith is asked once for each project; when that fails, its scores of the next minute are errors at once. Copies
    of a sink send by the same client.

    Args:
        client: A client of LangSmith; None takes the one that LangChain traces with.
        project: Name of the project that the runs are in; None takes the one that LangChain traces to.

    Raises:
        MissingDependencyError: langsmith is not installed.
        OptionError: The client is not one.
    """

    def __init__(self, client: Client | None = None, *, project: str | None = None) -> None:
        try:
            import langsmith.run_trees  # noqa: F401
        except ImportError as error:
            msg = 'Feedback for LangSmith needs its client. Install it: `pip install "langnorm[langsmith]"`.'
            raise MissingDependencyError(msg) from error
        if client is not None and not hasattr(client, "create_feedback"):
            refuse("client", client, "a `langsmith.Client`, or None for the one that LangChain traces with")
        if project is not None and (not isinstance(project, str) or not project):
            refuse("project", project, "the name of a project, or None for the one that LangChain traces to")
        self._client = client
        self._project = project
        self._project_ids: dict[_Place, UUID] = {}
        self._failed_at: dict[_Place, float] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[], LangSmithSink], tuple[()]]:
        return partial(type(self), self._client, project=self._project), ()

    def __deepcopy__(self, _memo: dict[int, object]) -> LangSmithSink:
        return copy.copy(self)  # a client has threads, which cannot be copied

    def __call__(self, score: NormScore) -> None:
        """Send it."""
        client, project = self._find_place()
        client.create_feedback(
            score.run_id,
            score.name,
            score=score.value,
            comment=str(score.summary),
            source_info={"langnorm": score.summary.to_dict(), "answer": score.answer},
            trace_id=score.trace_id,
            session_id=self._find_project(client, project),
            stop_after_attempt=_ATTEMPTS,
        )

    def _find_place(self) -> _Place:
        """Return the client, and the name of the project, that LangChain traces with and to where this is called."""
        from langchain_core.tracers.context import tracing_v2_callback_var
        from langsmith.run_helpers import get_tracing_context
        from langsmith.run_trees import get_cached_client
        from langsmith.utils import get_tracer_project

        context = get_tracing_context()
        run, tracer = context["parent"], tracing_v2_callback_var.get()  # an outer run says where the others go
        project: str | None = run.session_name if run else tracer.project_name if tracer else context["project_name"]
        client = self._client or (run.client if run else tracer.client if tracer else context["client"])
        # LangChain's own client is made when it is first needed: a client begins to ask its server at once.
        return client or get_cached_client(), self._project or project or get_tracer_project()

    def _find_project(self, client: Client, name: str | None) -> UUID:
        """Return the id of a project, which LangSmith wants with feedback.

        Raises:
            LangSmithError: There is no such project, or LangSmith does not answer.
        """
        from langsmith.utils import LangSmithError

        place = client, name
        with self._lock:
            if place in self._project_ids:
                return self._project_ids[place]
            if time.monotonic() - self._failed_at.get(place, -math.inf) < _PAUSE:
                msg = f"LangSmith could not name its project `{name}` a moment ago, so this score is not sent."
                raise LangSmithError(msg)
            try:
                self._project_ids[place] = _ask_for_project(client, name)
            except Exception:
                self._failed_at[place] = time.monotonic()
                raise
            return self._project_ids[place]


def _ask_for_project(client: Client, name: str | None) -> UUID:
    from langsmith.utils import LangSmithNotFoundError

    try:
        project = client.read_project(project_name=name)
    except LangSmithNotFoundError:  # it is made when its first run arrives, which may be this one
        client.flush(_FLUSH)
        project = client.read_project(project_name=name)
    project_id: UUID = project.id
    return project_id

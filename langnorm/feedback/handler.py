"""NormFeedback: a callback handler that sends a score for each answer that carries norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import ChatGeneration, LLMResult

from langnorm.checks import check_choice, check_flag, is_async, refuse
from langnorm.feedback.score import NormScore, NormSummary

Measure = Literal["intensity", "low_share"]
"""What of an answer's summary is its score."""


class NormFeedback(BaseCallbackHandler):
    """Sends a score for each answer of a ChatLangNorm to where people look at runs.

    Give it to any call, chain or agent as one of its `callbacks`; it works in runs of either kind, sync or async.
    Answers of other models, those without norms, and those whose score is not known yet are left alone.

    What a sink raises is logged by LangChain, and the answer is returned all the same, unless `raise_error` is set.

    Args:
        sink: A function that takes a `NormScore`, or one of the sinks of `langnorm.feedback`.
        measure: `"intensity"`, or `"low_share"`, the share of the steps that are low; both 0 to 1.
        name: Of the score; by default that of the measure after `norm_`.
        run_inline: Whether async runs call the sink on their own thread, before handlers that are not inline and in the
            order of `callbacks`; else they wait for it on another one. By default as the sink prefers.
        raise_error: Whether an error of the sink ends the run.

    Raises:
        OptionError: A value is not allowed.

    Example:
        .. code-block:: python

            from langnorm import ChatLangNorm, NormFeedback
            from langnorm.feedback import LangSmithSink

            chat.invoke("What is 47 + 385?", config={"callbacks": [NormFeedback(LangSmithSink())]})
    """

    def __init__(
        self,
        sink: Callable[[NormScore], None],
        *,
        measure: Measure = "intensity",
        name: str | None = None,
        run_inline: bool | None = None,
        raise_error: bool = False,
    ) -> None:
        super().__init__()
        _check_sink(sink)
        check_choice("measure", measure, get_args(Measure))
        if name is not None and (not isinstance(name, str) or not name):
            refuse("name", name, "a text that is not empty")
        if run_inline is not None:
            check_flag("run_inline", run_inline)
        check_flag("raise_error", raise_error)
        self.sink = sink
        self.measure = measure
        self.name = name or f"norm_{measure}"
        self.run_inline = bool(getattr(sink, "is_quick", False)) if run_inline is None else run_inline
        self.raise_error = raise_error
        # Of the runs around those of models. LangChain does not say that a run of a model itself was cancelled, and
        # such would stay here for ever.
        self._roots: dict[UUID, UUID | None] = {}

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, parent_run_id: UUID | None = None, **_: Any) -> None:
        """Send the scores of the answers of a run."""
        trace_id = run_id if parent_run_id is None else self._roots.get(parent_run_id)
        answers = [generation for generations in response.generations for generation in generations]
        for number, answer in enumerate(answers):
            if not isinstance(answer, ChatGeneration):
                continue
            summary = NormSummary.from_message(answer.message)
            value = getattr(summary, self.measure, None)
            if summary is None or value is None:
                continue
            self.sink(
                NormScore(
                    name=self.name,
                    value=value,
                    summary=summary,
                    message=answer.message,
                    run_id=run_id,
                    trace_id=trace_id,
                    answer=number,
                )
            )

    def _begin(self, *_: Any, run_id: UUID, parent_run_id: UUID | None = None, **__: Any) -> None:
        """Remember the outermost run around one that begins."""
        self._roots[run_id] = run_id if parent_run_id is None else self._roots.get(parent_run_id)

    def _end(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """Forget a run that has ended."""
        self._roots.pop(run_id, None)

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        """Do nothing; without this, LangChain would write all messages as one text for `on_llm_start`."""

    on_chain_start = on_tool_start = on_retriever_start = _begin
    on_chain_end = on_chain_error = on_tool_end = on_tool_error = _end
    on_retriever_end = on_retriever_error = _end


def _check_sink(sink: object) -> None:
    """Raise `OptionError` unless it can be called with a score and does all of its work then."""
    if not callable(sink) or isinstance(sink, type) or is_async(sink):
        kinds = "a function that takes a score and is not async, or a sink such as `langnorm.feedback.LangSmithSink()`"
        refuse("sink", sink, kinds)

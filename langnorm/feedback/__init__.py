"""What people who look at runs see of norms: a handler that sends a score per answer, and where it sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.lazy import lazy_names

if TYPE_CHECKING:
    from langnorm.feedback.handler import NormFeedback
    from langnorm.feedback.score import NormScore, NormSummary
    from langnorm.feedback.sinks import LangSmithSink, MessageSink, OpenTelemetrySink

__all__ = ["LangSmithSink", "MessageSink", "NormFeedback", "NormScore", "NormSummary", "OpenTelemetrySink"]

__getattr__ = lazy_names(
    __name__,
    {
        "LangSmithSink": "langnorm.feedback.sinks",
        "MessageSink": "langnorm.feedback.sinks",
        "NormFeedback": "langnorm.feedback.handler",
        "NormScore": "langnorm.feedback.score",
        "NormSummary": "langnorm.feedback.score",
        "OpenTelemetrySink": "langnorm.feedback.sinks",
    },
)

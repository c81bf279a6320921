"""A small trace for tests."""

from __future__ import annotations

from langnorm import NormTrace
from langnorm.norms.reading import NormReading
from langnorm.text.steps import StepSpan
from langnorm.trace_builder import build_trace

SPANS = [StepSpan("reasoning", 0, 2, 0, 5), StepSpan("answer", 2, 4, 0, 3)]
ROWS = [[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]]

READING = NormReading(
    intensities=(0.05, 0.85, 0.07),
    thresholds=(2.5, 40.0),
    trigger_rate=(0.5, 1 / 3),
    source="mine",
    other_steps=tuple(n / 20 for n in range(2, 20)),
)


def trace(reading: NormReading | None = None, *, keep_tokens: bool = False) -> NormTrace:
    """Return a trace of two layers and two steps."""
    return build_trace(4, (9, 10), ROWS, SPANS, reading or NormReading(), keep_tokens=keep_tokens)

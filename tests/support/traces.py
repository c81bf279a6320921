"""A small trace for tests."""

from __future__ import annotations

from langnorm import NormTrace
from langnorm.norms.reading import NormReading, TokenReading
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

TOKEN_READING = TokenReading(
    percentiles=((0.1, 0.0), (0.9, 0.8), (0.04, 0.1)), distances=((-1.5, -2.0), (1.5, 0.5), (-3.0, -0.25))
)


def trace(reading: NormReading | None = None, *, keep_tokens: bool = False) -> NormTrace:
    """Return a trace of two layers and two steps."""
    return build_trace(
        4,
        (9, 10),
        ROWS,
        SPANS,
        reading or NormReading(),
        keep_tokens=keep_tokens,
        token_reading=TOKEN_READING if keep_tokens and reading and reading.intensities else None,
        token_texts=("1 +", " 1", "two", "") if keep_tokens else None,
        token_ids=(5, 6, 7, 0) if keep_tokens else None,
    )

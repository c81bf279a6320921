"""Makes the trace of a sequence from its norms, its steps, and what the norms mean."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from langnorm.text.steps import StepSpan
from langnorm.trace import NormStep, NormTrace

if TYPE_CHECKING:
    from langnorm.norms.reading import NormReading, TokenReading

_INTENSITY_DIGITS = 6
_GREATEST = 3.4028235e38

_PerToken = TypeVar("_PerToken")


def build_trace(
    num_tokens: int,
    layers: Sequence[int],
    norms: Sequence[Sequence[float]],
    spans: Sequence[StepSpan],
    reading: NormReading,
    *,
    keep_tokens: bool,
    token_reading: TokenReading | None = None,
    token_texts: Sequence[str] | None = None,
    token_ids: Sequence[int] | None = None,
) -> NormTrace:
    """Return the trace of a sequence.

    Args:
        num_tokens: Number of generated tokens T.
        layers: The layers that were read.
        norms: T - 1 rows with one norm per layer.
        spans: The steps.
        reading: What the norms mean.
        keep_tokens: Whether the trace keeps the rows.
        token_reading: What the norms of single tokens mean, where the trace keeps that.
        token_texts: The text that became decodable with each token, where the trace keeps that.
        token_ids: The ids of the tokens, where the trace keeps them.
    """
    sinks = frozenset(reading.sinks)

    def without_sinks(per_token: Sequence[_PerToken], start: int, end: int) -> Sequence[_PerToken]:
        if not sinks:
            return per_token[start:end]
        return [per_token[i] for i in range(start, min(end, len(per_token))) if i not in sinks]

    def mean_intensity(start: int, end: int) -> float | None:
        of_tokens = [] if reading.intensities is None else without_sinks(reading.intensities, start, end)
        return round(fmean(of_tokens), _INTENSITY_DIGITS) if of_tokens else None

    def build_step(span: StepSpan) -> NormStep:
        intensity = mean_intensity(span.start, span.end)
        return NormStep(
            start=span.start,
            end=span.end,
            kind=span.kind,
            text_span=(span.text_start, span.text_end),
            mean=_mean(without_sinks(norms, span.start, span.end)),
            intensity=intensity,
            low=reading.is_low(intensity),
        )

    return NormTrace(
        tokens=num_tokens,
        layers=tuple(layers),
        mean=_mean(without_sinks(norms, 0, len(norms))),
        steps=tuple(map(build_step, spans)),
        intensity=mean_intensity(0, len(norms)),
        thresholds=_rounded_all(reading.thresholds),
        trigger_rate=_rounded_all(reading.trigger_rate),
        sinks=reading.sinks,
        profile=reading.source,
        intensity_kind=reading.intensity_kind,
        token_norms=rounded_rows(norms) if keep_tokens else None,
        token_percentiles=token_reading.percentiles if token_reading else None,
        token_distances=token_reading.distances if token_reading else None,
        token_texts=None if token_texts is None else tuple(token_texts),
        token_ids=None if token_ids is None else tuple(token_ids),
    )


def rounded_rows(norms: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Return rows of norms as a message carries them."""
    return tuple(tuple(map(_rounded, row)) for row in norms)


def _mean(rows: Sequence[Sequence[float]]) -> tuple[float, ...] | None:
    return tuple(_rounded(fmean(column)) for column in zip(*rows, strict=True)) or None


def _rounded(value: float) -> float:
    """Return the value with seven significant digits, all that float32 holds, and not above its greatest number.

    JSON has no word for the norm of a state that overflowed. Its token is listed as a sink.
    """
    return float(f"{value:.7g}") if value <= _GREATEST else _GREATEST


def _rounded_all(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(map(_rounded, values))

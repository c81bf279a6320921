"""What a message carries about how it was thought: norms per step, in plain JSON types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from langnorm.errors import OptionError
from langnorm.steps import StepSpan

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

KEY = "langnorm"
"""Under this key `response_metadata` has the trace, and `additional_kwargs` the norms of single tokens."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class NormStep:
    """One reasoning step.

    Attributes:
        start: Index of the step's first generated token.
        end: One past the index of its last token.
        kind: `"reasoning"` or `"answer"`.
        text_span: [start, end) of its text, in the message's `reasoning_content` or in its `content`.
        mean: Mean norm of its tokens, one per layer; None when none of its tokens was run.
        intensity: Mean percentile of its norms, 0 to 1; None while there is no profile to compare with.
        low: Whether the intensity is low; None together with it.
    """

    start: int
    end: int
    kind: str
    text_span: tuple[int, int]
    mean: tuple[float, ...] | None
    intensity: float | None = None
    low: bool | None = None


@dataclass(frozen=True, slots=True)
class NormTrace:
    """The norms of one message.

    Attributes:
        tokens: Number of generated tokens T. The last one is never run, so there are T - 1 rows of norms.
        layers: 0-based indices of the decoder layers that were read, ascending.
        mean: Mean norm of all rows, one per layer; None when there is no row.
        steps: The steps in order.
        intensity: Mean intensity of the message, or None.
        token_norms: With `norms="tokens"`, a row per token that was run, one value per layer.
    """

    tokens: int
    layers: tuple[int, ...]
    mean: tuple[float, ...] | None
    steps: tuple[NormStep, ...]
    intensity: float | None = None
    token_norms: tuple[tuple[float, ...], ...] | None = None

    @property
    def low_steps(self) -> tuple[int, ...] | None:
        """Indices of the steps of low intensity, or None while intensity is unknown."""
        if self.intensity is None:
            return None
        return tuple(i for i, step in enumerate(self.steps) if step.low)

    @classmethod
    def from_message(cls, message: BaseMessage) -> NormTrace:
        """Return the trace that `message` carries.

        Raises:
            OptionError: The message has none: another model made it, or `norms` was off.
        """
        stored = message.response_metadata.get(KEY) if hasattr(message, "response_metadata") else None
        if not stored:
            msg = (
                f"This `{type(message).__name__}` carries no norms. "
                'Use a message of ChatLangNorm with `norms="steps"` or `norms="tokens"`.'
            )
            raise OptionError(msg)
        rows = message.additional_kwargs.get(KEY, {}).get("token_norms")
        return cls.from_dict(stored, token_norms=rows)

    @classmethod
    def from_dict(cls, stored: dict[str, Any], token_norms: Sequence[Sequence[float]] | None = None) -> NormTrace:
        """Return the trace whose `to_dict` is `stored`."""
        steps = [
            NormStep(**(step | {"text_span": tuple(step["text_span"]), "mean": _tuple(step["mean"])}))
            for step in stored["steps"]
        ]
        return cls(
            tokens=stored["tokens"],
            layers=tuple(stored["layers"]),
            mean=_tuple(stored["mean"]),
            steps=tuple(steps),
            intensity=stored["intensity"],
            token_norms=None if token_norms is None else tuple(map(tuple, token_norms)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `response_metadata["langnorm"]` holds: plain JSON types, without the norms of tokens."""
        steps = [asdict(step) | {"text_span": list(step.text_span), "mean": _list(step.mean)} for step in self.steps]
        return {
            "version": _VERSION,
            "tokens": self.tokens,
            "layers": list(self.layers),
            "mean": _list(self.mean),
            "intensity": self.intensity,
            "low_steps": _list(self.low_steps),
            "steps": steps,
        }


def build_trace(
    num_tokens: int,
    layers: Sequence[int],
    norms: Sequence[Sequence[float]],
    spans: Sequence[StepSpan],
    *,
    keep_tokens: bool,
) -> NormTrace:
    """Return the trace of a sequence.

    Args:
        num_tokens: Number of generated tokens T.
        layers: The layers that were read.
        norms: T - 1 rows with one norm per layer.
        spans: The steps.
        keep_tokens: Whether the trace keeps the rows.
    """
    steps = tuple(
        NormStep(
            start=span.start,
            end=span.end,
            kind=span.part,
            text_span=(span.text_start, span.text_end),
            mean=_mean(norms[span.start : span.end]),
        )
        for span in spans
    )
    rows = tuple(tuple(map(_rounded, row)) for row in norms) if keep_tokens else None
    return NormTrace(num_tokens, tuple(layers), _mean(norms), steps, token_norms=rows)


def _mean(rows: Sequence[Sequence[float]]) -> tuple[float, ...] | None:
    return tuple(_rounded(fmean(column)) for column in zip(*rows, strict=True)) or None


def _rounded(value: float) -> float:
    """Return the value with seven significant digits: all that float32 holds."""
    return float(f"{value:.7g}")


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _list(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)

"""What is told of an answer's norms: a summary in a few numbers, and one of them as its score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING
from uuid import UUID

from langnorm.retry.attempts import low_share
from langnorm.trace import KEY, NormTrace

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class NormSummary:
    """The norms of an answer in a few numbers.

    Attributes:
        intensity: How high its norms are, 0 to 1; None while there is nothing to compare them with.
        num_steps: Number of its steps.
        num_low_steps: How many of them are low; None while no step is known to be low or not.
        low_share: Share of low steps among those of which that is known, 0 to 1, or None.
        chosen: 0-based index of the answer among the candidates of a selection; None where there was none.
        num_candidates: How many candidates there were, or None.
    """

    intensity: float | None
    num_steps: int
    num_low_steps: int | None
    low_share: float | None
    chosen: int | None = None
    num_candidates: int | None = None

    @classmethod
    def from_message(cls, message: BaseMessage) -> NormSummary | None:
        """Return the summary of a message, or None where it carries no norms.

        Raises:
            OptionError: What it carries is no sound trace.
        """
        traces = NormTrace.from_messages([message])
        if not traces:
            return None
        (trace,) = traces
        share = low_share(trace)
        selection = message.response_metadata[KEY].get("selection")
        selection = selection if isinstance(selection, Mapping) else {}
        return cls(
            intensity=trace.intensity,
            num_steps=len(trace.steps),
            num_low_steps=None if share is None else sum(bool(step.low) for step in trace.steps),
            low_share=share,
            chosen=selection.get("chosen"),
            num_candidates=selection.get("drawn"),
        )

    def to_dict(self) -> dict[str, float | int]:
        """Return what is known of it, in plain JSON types."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        """Return it in words, such as "intensity 0.43, 2 of 9 steps low, chosen from 8 candidates"."""
        words = ["intensity unknown" if self.intensity is None else f"intensity {self.intensity:.2f}"]
        if self.num_low_steps is not None:
            words.append(f"{self.num_low_steps} of {self.num_steps} steps low")
        if self.num_candidates is not None:
            words.append(f"chosen from {self.num_candidates} candidates")
        return ", ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormScore:
    """The score of one answer, as a sink gets it.

    Attributes:
        name: What was measured, such as `"norm_intensity"`.
        value: 0 to 1.
        summary: The norms of the answer.
        message: The answer.
        run_id: Of the run of the chat model that gave it.
        trace_id: Of the outermost run around that one; None where its beginning was not seen, as when the handler was
            given to the model alone.
        answer: 0-based index of the answer among those of its run, which are several with `n` above 1.
    """

    name: str
    value: float
    summary: NormSummary
    message: BaseMessage
    run_id: UUID
    trace_id: UUID | None = None
    answer: int = 0

"""The trace of a completion: its norms, read against what the call compares with."""

from __future__ import annotations

from collections.abc import Sequence

from langnorm.chat.recording import Recording
from langnorm.engines.requests import Completion
from langnorm.norms.reading import read_norms, read_tokens
from langnorm.text.reasoning import Segment
from langnorm.text.steps import split_steps
from langnorm.trace import NormTrace
from langnorm.trace_builder import build_trace


def build_message_trace(
    completion: Completion, segments: Sequence[Segment], recording: Recording, *, keep_tokens: bool
) -> NormTrace:
    """Return the trace of a completion.

    Args:
        completion: With norms of the recorded layers.
        segments: Its text, told apart.
        recording: What its norms are compared with.
        keep_tokens: Whether the trace keeps the norms, texts and ids of its tokens.
    """
    compared = completion.norms, recording.layers, recording.baseline, completion.token_ids
    return build_trace(
        len(completion.token_ids),
        recording.layers,
        completion.norms,
        split_steps(segments, recording.splitter),
        read_norms(*compared),
        token_reading=read_tokens(*compared) if recording.keeps_tokens else None,
        token_texts=completion.pieces if keep_tokens else None,
        token_ids=completion.token_ids if keep_tokens else None,
        keep_tokens=keep_tokens,
    )


def num_reasoning_tokens(segments: Sequence[Segment], num_tokens: int) -> int:
    """Return how many tokens came before the answer, the marks of the reasoning counted in."""
    if not any(segment.part == "reasoning" for segment in segments):
        return 0
    return next((segment.token for segment in segments if segment.part != "reasoning"), num_tokens)

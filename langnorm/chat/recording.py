"""What a call records of norms, and what it compares them with."""

from __future__ import annotations

from dataclasses import dataclass

from langnorm.norms.baseline import Baseline
from langnorm.text.steps import Splitter


@dataclass(frozen=True, slots=True)
class Recording:
    """The norms of a call: what is recorded and what it is compared with, the same for messages and for scores.

    Attributes:
        layers: The recorded layers.
        splitter: What a step is.
        baseline: What the norms are compared with.
        in_messages: Whether messages say something of norms.
        in_scores: Whether a selection's score reads them.
        keeps_tokens: Whether messages keep the norms of every token.
    """

    layers: tuple[int, ...]
    splitter: Splitter
    baseline: Baseline
    in_messages: bool
    in_scores: bool
    keeps_tokens: bool

"""Ends a prefill that nobody waits for any more; between decode steps, `SequenceTracker` ends sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from langnorm.engines.transformers.batching import BatchAbandoned
from langnorm.engines.transformers.decoder_layers import hooked

if TYPE_CHECKING:
    from torch import nn

    from langnorm.engines.sequence import PendingSequence


class PrefillGuard:
    """Raises `BatchAbandoned` after a decoder layer when all sequences of a batch were cancelled.

    Args:
        sequences: The sequences of the batch.
    """

    def __init__(self, sequences: Sequence[PendingSequence]) -> None:
        self._sequences = sequences
        self._hooks = ExitStack()

    @contextmanager
    def attached(self, decoder_layers: nn.ModuleList) -> Iterator[None]:
        """Watch the layers inside the `with` block, until `end_prefill`: decode steps are short."""
        with self._hooks:
            self._hooks.enter_context(hooked(decoder_layers, dict.fromkeys(range(len(decoder_layers)), self._check)))
            yield

    def end_prefill(self) -> None:
        """Stop watching."""
        self._hooks.close()

    def _check(self, *_: object) -> None:
        if all(sequence.is_cancelled for sequence in self._sequences):
            raise BatchAbandoned

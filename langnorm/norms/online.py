"""The distribution of all norms that an engine has seen, for models without a profile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch

from langnorm.norms.reading import sink_mask
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.thresholds import ReferenceEstimator

if TYPE_CHECKING:
    from torch import Tensor

    from langnorm.norms.thresholds import ReferenceThreshold

WARM_UP = 500
"""Decode tokens per layer before which nothing is said; the paper's number."""

_frozen: ContextVar[tuple[OnlineStatistics, QuantileSketch] | None] = ContextVar("frozen", default=None)


class OnlineStatistics:
    """Samples every decode token of every sequence, and hands out snapshots.

    A request takes its snapshot before it starts. What runs beside or before it in the same batch is not in there.

    Args:
        num_layers: Number of decoder layers of the model.
    """

    def __init__(self, num_layers: int) -> None:
        self._sketch = QuantileSketch(range(num_layers))
        self._estimators: dict[tuple[ReferenceThreshold, tuple[int, ...]], ReferenceEstimator] = {}
        self._lock = threading.Lock()

    def update(self, norms: Tensor, layers: Sequence[int], lengths: Sequence[int]) -> None:
        """Add a batch.

        Args:
            norms: Of all steps (steps, B, L).
            layers: The L layers, as indices.
            lengths: Number of steps of each of the B sequences; what follows is padding.
        """
        steps = torch.arange(norms.size(0), device=norms.device)
        is_token = steps[:, None] < torch.tensor(lengths, device=norms.device)  # (steps, B)
        by_row = norms.masked_fill(~is_token[..., None], torch.nan).transpose(0, 1)  # (B, steps, L)
        is_used = is_token.T & ~sink_mask(by_row)
        with self._lock:
            self._sketch.update(by_row, is_used, layers)

    def snapshot(self, layers: Sequence[int]) -> QuantileSketch | None:
        """Return the distribution of these layers as of now, or None before the warm-up is over."""
        frozen = _frozen.get()
        with self._lock:
            sketch = frozen[1] if frozen and frozen[0] is self else self._sketch
            snapshot = sketch.select(layers)
            # Asked inside the lock, so that the requests of a batch find what the first one of them has computed.
            return snapshot if snapshot.num_samples >= WARM_UP else None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Give all requests that start in this context, its threads and its tasks the same snapshot."""
        with self._lock:
            token = _frozen.set((self, self._sketch.copy()))
        try:
            yield
        finally:
            _frozen.reset(token)

    def estimator(self, rule: ReferenceThreshold, layers: Sequence[int]) -> ReferenceEstimator:
        """Return the state of the paper's rule for these layers.

        As in the paper it goes on from request to request, so it is meaningful for one sequence at a time only.
        """
        with self._lock:
            return self._estimators.setdefault((rule, tuple(layers)), ReferenceEstimator(rule, layers))

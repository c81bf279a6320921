"""The state of the paper's reference rule: quartiles that go on from sample to sample."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from langnorm.errors import OptionError
from langnorm.norms.p_square import PSquare
from langnorm.norms.thresholds import ReferenceThreshold, fence


class ReferenceEstimator:
    """The state of a `ReferenceThreshold`: both quartiles of each layer, over all samples so far.

    Args:
        rule: The rule.
        layers: 0-based indices of the decoder layers, the columns of what is added.
    """

    def __init__(self, rule: ReferenceThreshold, layers: Sequence[int]) -> None:
        self.rule = rule
        self.layers = tuple(layers)
        self._quartiles = [(PSquare(0.25), PSquare(0.75)) for _ in self.layers]

    @property
    def num_samples(self) -> int:
        """Number of norms of the layer with the fewest."""
        return min(first.num_samples for first, _ in self._quartiles)

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """`tau_l`, one per layer, or None while a layer has fewer than `warm_up` samples, or fewer than five."""
        thresholds = []
        for first, third in self._quartiles:
            if first.value is None or third.value is None or first.num_samples < self.rule.warm_up:
                return None
            thresholds.append(fence(self.rule, first.value, third.value))
        return tuple(thresholds)

    def add(self, row: Sequence[float]) -> None:
        """Take the norms of one decode step, one per layer.

        Raises:
            OptionError: There is not one norm per layer.
        """
        if len(row) != len(self.layers):
            msg = f"A row of `{len(row)}` norms does not fit `{len(self.layers)}` layers. Give one norm per layer."
            raise OptionError(msg)
        for quartiles, norm in zip(self._quartiles, row, strict=True):
            for quartile in quartiles:
                quartile.add(norm)

    def copy(self) -> ReferenceEstimator:
        """Return a copy that further samples do not change."""
        return copy.deepcopy(self)

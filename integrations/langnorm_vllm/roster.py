"""The sequences of a pass. Most passes have those of the one before: what follows from them is found out once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from langnorm_vllm.norm_store import Kept, SequenceNorms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from langnorm.engines.vllm.order import Order
    from langnorm_vllm.batch_view import BatchView

_NEVER = np.iinfo(np.int64).max  # a position that no token has


class ObservedSequence:
    """A sequence of the engine.

    Attributes:
        order: What is asked of it.
        norms: Its norms; None where none are recorded.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        first = 0 if order.records_prompt else order.num_prompt_tokens
        self.norms = SequenceNorms(order.layers, first) if order.layers else None


class Roster:
    """The sequences of a pass, in the order of its rows.

    Args:
        request_ids: Of vLLM's (R,).
        by_request: Those that are observed, by such an id.

    Attributes:
        request_ids: As given.
        orders: What is asked of each; None of those of others.
        is_acted_on: Whether something is done to the states of any of them.
        layers: The layers whose norms are recorded.
        owners: The norms of those that have some, by number.
    """

    def __init__(self, request_ids: Sequence[str], by_request: Mapping[str, ObservedSequence]) -> None:
        self.request_ids = list(request_ids)  # vLLM changes its own
        sequences = [by_request.get(request_id) for request_id in request_ids]
        self.orders = [sequence.order if sequence else None for sequence in sequences]
        self.is_acted_on = any(order.plans.layers or order.is_trial for order in self.orders if order)
        self.layers = frozenset(layer for order in self.orders if order for layer in order.layers)
        norms = [sequence.norms if sequence else None for sequence in sequences]
        self.owners = {one.number: one for one in norms if one}
        self._numbers = np.array([one.number if one else -1 for one in norms])  # (R,)
        self._first_kept = np.array([one.first_position if one else _NEVER for one in norms])  # (R,)
        self._layout = _Layout(np.zeros(len(sequences) + 1, dtype=np.int32))  # of the last pass

    def kept(self, batch: BatchView) -> Kept | None:
        """Return which rows of a pass of these sequences are kept; None if no row is."""
        if not self.owners:
            return None
        if not np.array_equal(batch.first_rows, self._layout.first_rows):
            self._layout = _Layout(batch.first_rows.copy())  # vLLM writes into its own again
        rows, parts, steps = self._layout.rows, self._layout.parts, self._layout.steps
        positions = batch.first_positions[parts] + steps
        is_kept = positions >= self._first_kept[parts]
        if not is_kept.all():
            rows, parts, positions = rows[is_kept], parts[is_kept], positions[is_kept]
        return Kept(rows, self._numbers[parts], positions) if len(rows) else None


class _Layout:
    """Where the rows of requests are in a pass; most passes have that of the one before, a row for each.

    Args:
        first_rows: As in `BatchView`.

    Attributes:
        first_rows: As given.
        rows: All rows (N,).
        parts: The number of the request that each belongs to (N,).
        steps: How many of its rows are before each (N,).
    """

    def __init__(self, first_rows: NDArray[np.int32]) -> None:
        self.first_rows = first_rows
        self.parts = np.repeat(np.arange(len(first_rows) - 1), np.diff(first_rows))
        self.rows = np.arange(len(self.parts))
        self.steps = self.rows - first_rows[self.parts]

"""The sequences of a pass. Most passes have those of the one before: what follows from them is found out once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from langnorm_vllm.norm_store import Kept, SequenceNorms

if TYPE_CHECKING:
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

    def kept(self, batch: BatchView) -> Kept | None:
        """Return which rows of a pass of these sequences are kept; None if no row is."""
        if not self.owners:
            return None
        first_rows = batch.first_rows
        parts = np.repeat(np.arange(len(self.request_ids)), np.diff(first_rows))  # (N,)
        rows = np.arange(len(parts))
        positions = rows + (batch.first_positions - first_rows[:-1])[parts]
        is_kept = positions >= self._first_kept[parts]
        if not is_kept.any():
            return None
        if not is_kept.all():
            rows, parts, positions = rows[is_kept], parts[is_kept], positions[is_kept]
        return Kept(rows, self._numbers[parts], positions)

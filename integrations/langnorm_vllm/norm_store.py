"""Keeps norms by sequence and position.

Rows stay on the device until they are many or somebody asks: a copy for each pass would make the host wait for it. Of
a pass the host only notes whose rows they are, in a few arrays: a loop over sequences would cost as much as the norms.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_MOST_PASSES = 128  # that wait on the device
_MOST_ROWS = 16_384

_numbers = itertools.count()


class SequenceNorms:
    """The norms of one sequence. A position that is computed again replaces what it was before.

    Args:
        layers: The layers that are kept.
        first_position: Of the first token that is kept.

    Attributes:
        number: Its own, in this process.
        layers: As given.
    """

    def __init__(self, layers: Sequence[int], first_position: int) -> None:
        self.number = next(_numbers)
        self.layers = tuple(layers)
        self.first_position = first_position
        self._table: NDArray[np.float32] = np.full((64, len(self.layers)), np.nan, dtype=np.float32)
        self._num_rows = 0

    def put(self, positions: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Keep rows (T, L) of positions (T,), none of which is before the first; later rows replace earlier ones."""
        places = positions - self.first_position
        end = int(places.max()) + 1
        if end > len(self._table):
            larger = np.full((max(end, 2 * len(self._table)), len(self.layers)), np.nan, dtype=np.float32)
            larger[: len(self._table)] = self._table
            self._table = larger
        self._table[places] = rows
        self._num_rows = max(self._num_rows, end)

    def rows(self) -> NDArray[np.float32]:
        """Return the rows (T, L); NaN where a position was never seen."""
        return self._table[: self._num_rows]


class Kept(NamedTuple):
    """The K rows of a pass that are kept.

    Attributes:
        rows: Their places in the pass (K,), ascending.
        owners: The numbers of the sequences that they belong to (K,).
        positions: Those of their tokens (K,).
    """

    rows: NDArray[np.int64]
    owners: NDArray[np.int64]
    positions: NDArray[np.int64]


class NormStore:
    """The norms of all sequences, and those rows that are still on the device."""

    def __init__(self) -> None:
        self._layers: tuple[int, ...] = ()  # of the rows that wait
        self._waiting: list[Tensor] = []  # (L, K) a pass
        self._labels: list[Kept] = []  # of these
        self._owners: dict[int, SequenceNorms] = {}  # of these, by number
        self._num_waiting = 0  # rows

    def keep(self, norms: Tensor, layers: tuple[int, ...], kept: Kept, owners: Mapping[int, SequenceNorms]) -> None:
        """Take norms of the pass that has just been made.

        Args:
            norms: The rows that are kept (L, K).
            layers: The L layers.
            kept: Which rows these are.
            owners: The sequences that they belong to, by number.
        """
        if layers != self._layers:
            self.flush()
            self._layers = layers
        self._waiting.append(norms)
        self._labels.append(kept)
        self._owners.update(owners)
        self._num_waiting += len(kept.rows)
        if len(self._waiting) >= _MOST_PASSES or self._num_waiting >= _MOST_ROWS:
            self.flush()

    def flush(self) -> None:
        """Bring all rows that wait to where they belong."""
        if not self._waiting:
            return
        norms = torch.cat(self._waiting, dim=1).cpu().numpy()  # (L, K of all passes)
        _, owners, positions = (np.concatenate(column) for column in zip(*self._labels, strict=True))
        by_number, self._owners = self._owners, {}
        self._waiting, self._labels, self._num_waiting = [], [], 0
        order = np.argsort(owners, kind="stable")  # of one owner as they came: a later row replaces an earlier one
        numbers, starts = np.unique(owners[order], return_index=True)
        for number, places in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            owner = by_number[number]
            columns = np.searchsorted(self._layers, owner.layers)
            owner.put(positions[places], norms[np.ix_(columns, places)].T)

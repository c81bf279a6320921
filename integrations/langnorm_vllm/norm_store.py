"""Keeps norms by sequence and position.

Rows stay on the device until they are many or somebody asks: a copy for each pass would make the host wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_MOST_PASSES = 128  # that wait on the device
_MOST_ROWS = 16_384


class SequenceNorms:
    """The norms of one sequence. A position that is computed again replaces what it was before.

    Args:
        layers: The layers that are kept.
        first_position: Of the first token that is kept.
    """

    def __init__(self, layers: Sequence[int], first_position: int) -> None:
        self.columns = list(layers)
        self.first_position = first_position
        self._table: NDArray[np.float32] = np.full((64, len(self.columns)), np.nan, dtype=np.float32)
        self._num_rows = 0

    def put(self, position: int, rows: NDArray[np.float32]) -> None:
        """Keep rows (T, L) of consecutive positions, from this one on."""
        start, end = position - self.first_position, position - self.first_position + len(rows)
        if start < 0:
            rows, start = rows[-start:], 0
        if end > len(self._table):
            larger = np.full((max(end, 2 * len(self._table)), len(self.columns)), np.nan, dtype=np.float32)
            larger[: len(self._table)] = self._table
            self._table = larger
        self._table[start:end] = rows
        self._num_rows = max(self._num_rows, end)

    def rows(self) -> NDArray[np.float32]:
        """Return the rows (T, L); NaN where a position was never seen."""
        return self._table[: self._num_rows]


class NormStore:
    """The norms of all sequences, and those rows that are still on the device.

    Args:
        num_layers: L, the number of decoder layers.
        num_rows: Most tokens of a pass.
        device: Where the model is.
    """

    def __init__(self, num_layers: int, num_rows: int, device: torch.device) -> None:
        self.current = torch.zeros(num_layers, num_rows, device=device)
        """Norms (L, N) of the pass under way. Hooks write here: graphs that were captured know this place."""
        self._waiting: list[Tensor] = []  # (L, R) a pass
        self._labels: list[tuple[SequenceNorms, int, int, int]] = []  # whose, position, first row among all, length
        self._num_waiting = 0  # rows

    def keep(self, parts: Sequence[tuple[SequenceNorms, int, int, int]]) -> None:
        """Take rows of the pass that has just been made.

        Args:
            parts: Whose they are, the position of the first token, its row in the pass, and how many follow.
        """
        if not parts:
            return
        first, last = parts[0][2], parts[-1][2] + parts[-1][3]
        if last - first == sum(part[3] for part in parts):
            rows = self.current[:, first:last].clone()
            offset = self._num_waiting - first
            self._labels += [(whose, position, row + offset, length) for whose, position, row, length in parts]
        else:
            places = [place for _, _, row, length in parts for place in range(row, row + length)]
            index = torch.tensor(places).to(self.current.device, non_blocking=True)
            rows = self.current.index_select(1, index)
            place = self._num_waiting
            for whose, position, _, length in parts:
                self._labels.append((whose, position, place, length))
                place += length
        self._waiting.append(rows)
        self._num_waiting += rows.size(1)
        if len(self._waiting) >= _MOST_PASSES or self._num_waiting >= _MOST_ROWS:
            self.flush()

    def flush(self) -> None:
        """Bring all rows that wait to where they belong."""
        if not self._waiting:
            return
        table = torch.cat(self._waiting, dim=1).cpu().numpy().T  # (R, L)
        labels, self._waiting, self._labels, self._num_waiting = self._labels, [], [], 0
        for whose, position, row, length in labels:
            whose.put(position, table[row : row + length, whose.columns])

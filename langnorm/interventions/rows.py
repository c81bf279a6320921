"""Rows of a batch that have something in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor


class Rows:
    """Some rows of a batch, at one layer.

    Args:
        rows: Their numbers, ascending.
        batch_size: B, the number of rows in the batch.
        device: Where the layer's states are.
    """

    def __init__(self, rows: Sequence[int], batch_size: int, device: torch.device) -> None:
        self.rows = torch.tensor(rows, device=device)  # (R,)
        self.places = {row: place for place, row in enumerate(rows)}
        self._are_all = len(rows) == batch_size

    def of(self, values: Tensor) -> Tensor:
        """Return the part (R, ...) of these rows in what there is of each (B, ...); the same object if it is all."""
        return values if self._are_all else values[self.rows]

    def put(self, values: Tensor, changed: Tensor) -> Tensor:
        """Return what there is of each row (B, ...), with that of these rows (R, ...) replaced."""
        return changed if self._are_all else values.index_copy(0, self.rows, changed)

    def running(self, is_running: Tensor) -> Tensor:
        """Return which of these rows go on (R,), given that of all (B,), on whatever device."""
        return self.of(is_running.to(self.rows.device))

    def column(self, values: Iterable[float]) -> Tensor:
        """Return one number per row (R,), float32."""
        return torch.tensor(list(values), dtype=torch.float32, device=self.rows.device)


def maybe_any(mask: Tensor) -> bool:
    """Return whether any entry is set; True where that is not known before an accelerator has caught up."""
    return mask.device.type != "cpu" or bool(mask.any())

"""The best of n answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.lazy import lazy_names

if TYPE_CHECKING:
    from langnorm.selection.options import Selection
    from langnorm.selection.pruning import Pruning
    from langnorm.selection.selector import NormSelector, rank

__all__ = [
    "NormSelector",
    "Pruning",
    "Selection",
    "rank",
]

__getattr__ = lazy_names(
    __name__,
    {
        "NormSelector": "langnorm.selection.selector",
        "Pruning": "langnorm.selection.pruning",
        "Selection": "langnorm.selection.options",
        "rank": "langnorm.selection.selector",
    },
)

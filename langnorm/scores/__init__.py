"""Numbers by which answers to one prompt are ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.lazy import lazy_names

if TYPE_CHECKING:
    from langnorm.scores.registry import SCORES, get_score, register
    from langnorm.scores.samples import Sample
    from langnorm.scores.score import Score

__all__ = [
    "SCORES",
    "Sample",
    "Score",
    "get_score",
    "register",
]

__getattr__ = lazy_names(
    __name__,
    {
        "SCORES": "langnorm.scores.registry",
        "Sample": "langnorm.scores.samples",
        "Score": "langnorm.scores.score",
        "get_score": "langnorm.scores.registry",
        "register": "langnorm.scores.registry",
    },
)

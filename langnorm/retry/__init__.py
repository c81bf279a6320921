"""Weak answers are asked again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.lazy import lazy_names

if TYPE_CHECKING:
    from langnorm.retry.runnable import NormRetry

__all__ = [
    "NormRetry",
]

__getattr__ = lazy_names(
    __name__,
    {
        "NormRetry": "langnorm.retry.runnable",
    },
)

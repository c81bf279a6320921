"""Middleware for agents of langchain; needs the extra `agents`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.lazy import lazy_names

if TYPE_CHECKING:
    from langnorm.middleware.retry import NormRetryMiddleware

__all__ = ["NormRetryMiddleware"]

__getattr__ = lazy_names(__name__, {"NormRetryMiddleware": "langnorm.middleware.retry"})

"""Middleware for langchain's agents; needs the extra `agents`."""

from __future__ import annotations

from langnorm.middleware.retry import NormRetryMiddleware

__all__ = ["NormRetryMiddleware"]

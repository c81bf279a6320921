"""Pictures of norms: pages, plots, and what the terminal shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.lazy import lazy_names

if TYPE_CHECKING:
    from langnorm.viz.html.page import Page
    from langnorm.viz.pages import heatmap, ranking

__all__ = [
    "Page",
    "heatmap",
    "ranking",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Page": "langnorm.viz.html.page",
        "heatmap": "langnorm.viz.pages",
        "ranking": "langnorm.viz.pages",
    },
)

"""Pictures of norms: pages, plots, and what the terminal shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.lazy import lazy_names

if TYPE_CHECKING:
    from langnorm.viz.html.page import Page
    from langnorm.viz.live import LiveAnswer
    from langnorm.viz.pages import heatmap, ranking
    from langnorm.viz.plots import plot_layers, plot_steps

__all__ = [
    "LiveAnswer",
    "Page",
    "heatmap",
    "plot_layers",
    "plot_steps",
    "ranking",
]

__getattr__ = lazy_names(
    __name__,
    {
        "LiveAnswer": "langnorm.viz.live",
        "Page": "langnorm.viz.html.page",
        "heatmap": "langnorm.viz.pages",
        "plot_layers": "langnorm.viz.plots",
        "plot_steps": "langnorm.viz.plots",
        "ranking": "langnorm.viz.pages",
    },
)

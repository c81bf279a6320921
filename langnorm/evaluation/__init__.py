"""Is the norm a signal in a model, and does acting on it help on a task?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.lazy import lazy_names

if TYPE_CHECKING:
    from langnorm.evaluation.methods import Method
    from langnorm.evaluation.report import Report
    from langnorm.evaluation.runner import evaluate
    from langnorm.evaluation.tasks import Item, Task, load_task

__all__ = ["Item", "Method", "Report", "Task", "evaluate", "load_task"]

__getattr__ = lazy_names(
    __name__,
    {
        "Item": "langnorm.evaluation.tasks",
        "Method": "langnorm.evaluation.methods",
        "Report": "langnorm.evaluation.report",
        "Task": "langnorm.evaluation.tasks",
        "evaluate": "langnorm.evaluation.runner",
        "load_task": "langnorm.evaluation.tasks",
    },
)

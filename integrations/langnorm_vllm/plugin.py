"""What vLLM loads in each of its processes, as a plugin of the group `vllm.general_plugins`.

Engines that langnorm has not started are left alone: they have no `langnorm` in their `additional_config`.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.v1.worker.worker_base import WorkerBase

CONFIG_NAME = "langnorm"
"""Of the settings of an engine in `additional_config`, and of those of a request in `extra_args`."""


def register() -> None:
    """Let workers of engines that langnorm starts observe their model, and answer to `langnorm_...` over RPC."""
    from vllm.v1.worker.gpu_worker import Worker
    from vllm.v1.worker.worker_base import WorkerBase

    if hasattr(WorkerBase, "langnorm_describe"):  # loaded before
        return
    load_model = Worker.load_model

    @wraps(load_model)
    def load_observed_model(self: Worker, *args: Any, **kwargs: Any) -> None:
        load_model(self, *args, **kwargs)
        if CONFIG_NAME in (self.vllm_config.additional_config or {}):
            from langnorm_vllm.worker_side import WorkerSide

            self.langnorm = WorkerSide(self)

    Worker.load_model = load_observed_model
    for name in ("describe", "take", "peek", "forget"):
        setattr(WorkerBase, f"langnorm_{name}", _remote(name))


def _remote(name: str) -> Any:
    """Return a method of workers that calls one of `WorkerSide`; vLLM finds it by name."""

    def call(self: WorkerBase, *args: Any) -> Any:
        return getattr(self.langnorm, name)(*args)

    return call

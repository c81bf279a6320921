"""What vLLM loads in each of its processes, as a plugin of the group `vllm.general_plugins`.

Engines that langnorm has not started are left alone: they have no `langnorm` in their `additional_config`.
"""

from __future__ import annotations

import signal
from functools import wraps
from multiprocessing import parent_process
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.worker.worker_base import WorkerBase

CONFIG_NAME = "langnorm"
"""Of the settings of an engine in `additional_config`, and of those of a request in `extra_args`."""


def register() -> None:
    """Let workers of engines that langnorm starts observe their model, and answer to `langnorm_...` over RPC."""
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.worker.gpu_worker import Worker
    from vllm.v1.worker.worker_base import WorkerBase

    if hasattr(WorkerBase, "langnorm_describe"):  # loaded before
        return
    load_model = Worker.load_model

    @wraps(load_model)
    def load_observed_model(self: Worker, *args: Any, **kwargs: Any) -> None:
        load_model(self, *args, **kwargs)
        if _is_ours(self.vllm_config):
            from langnorm_vllm.worker_side import WorkerSide

            _ignore_interrupts()
            self.langnorm = WorkerSide(self)

    Worker.load_model = load_observed_model
    initialize = EngineCore._initialize_kv_caches

    @wraps(initialize)
    def initialize_undisturbed(self: EngineCore, config: VllmConfig, *args: Any, **kwargs: Any) -> Any:
        if _is_ours(config):
            _ignore_interrupts()
        return initialize(self, config, *args, **kwargs)

    EngineCore._initialize_kv_caches = initialize_undisturbed
    for name in ("describe", "take", "peek", "norms", "forget"):
        setattr(WorkerBase, f"langnorm_{name}", _remote(name))


def _is_ours(config: VllmConfig) -> bool:
    return CONFIG_NAME in (config.additional_config or {})


def _ignore_interrupts() -> None:
    """Let Ctrl-C end what the user's process waits for, and not the processes of vLLM, which other calls need too.

    A terminal sends the signal to all of them. When the user's process ends, vLLM ends these by another one.
    """
    if parent_process() is not None and current_thread() is main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _remote(name: str) -> Any:
    """Return a method of workers that calls one of `WorkerSide`; vLLM finds it by name."""

    def call(self: WorkerBase, *args: Any) -> Any:
        return getattr(self.langnorm, name)(*args)

    return call

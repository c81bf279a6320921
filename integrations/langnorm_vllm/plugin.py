"""What vLLM loads in each of its processes, as a plugin of the group `vllm.general_plugins`.

Engines without `langnorm` in their `additional_config`, which langnorm itself sets, are left alone.
"""

from __future__ import annotations

import os
import signal
import time
from functools import wraps
from multiprocessing import parent_process
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any

from langnorm.engines.vllm.starting import CONFIG_NAME, adapt, is_ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

    from vllm.config import VllmConfig
    from vllm.v1.worker.worker_base import WorkerBase

_SECONDS_TO_END = 10


def register() -> None:
    """Let workers of engines that are meant for it observe their model, and answer to `langnorm_...` over RPC."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.worker.worker_base import WorkerBase

    # `gpu_worker` is not imported here: with it come operations that vLLM defines by what it finds in the environment,
    # where the configuration of an engine has something to say.
    if hasattr(WorkerBase, "langnorm_describe"):  # loaded before
        return
    create = EngineArgs.create_engine_config

    @wraps(create)
    def create_adapted(self: EngineArgs, *args: Any, **kwargs: Any) -> VllmConfig:
        config = create(self, *args, **kwargs)
        adapt(config)
        return config

    EngineArgs.create_engine_config = create_adapted
    begin = WorkerBase.__init__

    @wraps(begin)
    def begin_observed(self: WorkerBase, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if is_ours(self.vllm_config):
            self.load_model = _observed(self, self.load_model)

    WorkerBase.__init__ = begin_observed
    initialize = EngineCore._initialize_kv_caches

    @wraps(initialize)
    def initialize_undisturbed(self: EngineCore, config: VllmConfig, *args: Any, **kwargs: Any) -> Any:
        if is_ours(config):
            _ignore_interrupts(config)
            _end_with_parent(config)
        return initialize(self, config, *args, **kwargs)

    EngineCore._initialize_kv_caches = initialize_undisturbed
    for name in ("describe", "take", "peek", "norms", "forget"):
        setattr(WorkerBase, f"langnorm_{name}", _remote(name))


def _observed(worker: WorkerBase, load_model: Callable[..., None]) -> Callable[..., None]:
    """Return what loads the model of a worker, and then watches it."""

    @wraps(load_model)
    def load_observed_model(*args: Any, **kwargs: Any) -> None:
        load_model(*args, **kwargs)
        from langnorm_vllm.worker_side import WorkerSide

        _ignore_interrupts(worker.vllm_config)
        worker.langnorm = WorkerSide(worker)

    return load_observed_model


def _parent_of_vllm(config: VllmConfig) -> BaseProcess | None:
    """Return the process that has started this one of vLLM's; None where the model is run in the user's own."""
    return None if config.additional_config[CONFIG_NAME]["in_process"] else parent_process()


def _ignore_interrupts(config: VllmConfig) -> None:
    """Let Ctrl-C end what the user's process waits for, and not the processes of vLLM, which other calls need too.

    A terminal sends the signal to all of them. When the user's process ends, vLLM ends these by another one.
    """
    if _parent_of_vllm(config) is not None and current_thread() is main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent(config: VllmConfig) -> None:
    """Let the process that runs vLLM's engine end with the user's, also where that is killed or leaves in a hurry.

    vLLM itself only sees to it that the processes of workers end with this one.
    """
    if (parent := _parent_of_vllm(config)) is None:
        return

    def end() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_TO_END)
        os._exit(1)

    Thread(target=end, name="langnorm's parent", daemon=True).start()


def _remote(name: str) -> Any:
    """Return a method of workers that calls one of `WorkerSide`; vLLM finds it by name."""

    def call(self: WorkerBase, *args: Any) -> Any:
        return getattr(self.langnorm, name)(*args)

    return call

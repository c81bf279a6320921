"""How vLLM's engine is started: its versions, its process, and what langnorm changes of its defaults."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from langnorm.checks import check_flag, refuse
from langnorm.engines.vllm.options import REFUSED, check_possible
from langnorm.errors import MissingDependencyError, OptionError

CONFIG_NAME = "langnorm"
"""Of the settings of an engine in vLLM's `additional_config`, and of those of a request in its `extra_args`."""

_SETTINGS = ("in_process", "interventions")
"""Those of an engine, as `VllmOptions` has them."""

BETWEEN_LAYERS = "langnorm::between_layers"
"""The operation by which workers look in between the layers of a compiled model."""

_OLDEST, _FIRST_UNKNOWN = (0, 32), (0, 34)
_MOST_CACHE_BYTES = 4 * 2**30  # on a CPU, where vLLM takes nearly all memory unless it is told otherwise


def import_vllm() -> tuple[Any, Any, Any]:
    """Return vLLM's classes of arguments, engines and executors.

    Raises:
        MissingDependencyError: vLLM is not installed, or a version that is not known.
    """
    try:
        import vllm
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
        from vllm.v1.executor import Executor
    except ImportError as error:
        msg = (
            "The engine `vllm` needs vLLM. Install it with `pip install 'langnorm[vllm]'`; on a machine without a GPU, "
            f"docs/models.md says how. ({error})"
        )
        raise MissingDependencyError(msg) from error
    version = tuple(int(part) for part in vllm.__version__.split(".")[:2])
    if not _OLDEST <= version < _FIRST_UNKNOWN:
        msg = (
            f"langnorm knows vLLM {_OLDEST[0]}.{_OLDEST[1]} and later ones below {_FIRST_UNKNOWN[0]}."
            f"{_FIRST_UNKNOWN[1]}, and {vllm.__version__} is installed. Install one of these."
        )
        raise MissingDependencyError(msg)
    return EngineArgs, LLMEngine, Executor


def default_arguments() -> dict[str, Any]:
    """Return arguments of vLLM's that are others here unless the caller names them."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        return {}
    import psutil

    return {"kv_cache_memory_bytes": min(_MOST_CACHE_BYTES, psutil.virtual_memory().available // 4)}


def is_ours(config: Any) -> bool:
    """Return whether the engine of a `VllmConfig` is meant for langnorm; others may have anything for settings."""
    return isinstance(config.additional_config, Mapping) and config.additional_config.get(CONFIG_NAME) is not None


def adapt(config: Any) -> None:
    """Change the configuration of an engine whose `additional_config` has settings of langnorm's, and complete these.

    Args:
        config: A `VllmConfig` that has just been made; with others, nothing is done.

    Raises:
        OptionError: A setting is unknown, or langnorm cannot observe a model that is run so.
    """
    if not is_ours(config):
        return
    own = config.additional_config[CONFIG_NAME]
    if not isinstance(own, Mapping):
        refuse(CONFIG_NAME, own, 'an object, such as {"interventions": true}', "additional_config")
    for name in own:
        if name not in _SETTINGS:
            msg = f"`{CONFIG_NAME}` of `additional_config` has no `{name}`. Use `interventions` or nothing."
            raise OptionError(msg)
    own = {**dict.fromkeys(_SETTINGS, False), **own}
    for name, value in own.items():
        check_flag(name, value, owner=CONFIG_NAME)
    # Where the arguments of an engine go, each to one of these.
    parts = (config, config.parallel_config, config.cache_config, config.compilation_config.pass_config)
    for part in parts:
        check_possible({name: getattr(part, name, None) for name in REFUSED})
    config.additional_config = {**config.additional_config, CONFIG_NAME: own}
    if own["interventions"]:
        _cut_graphs(config)
    runner = "V2" if config.use_v2_model_runner else "V1"
    model = config.model_config
    model.logits_processors = [
        *(model.logits_processors or ()),
        f"langnorm_vllm.logits_processors:TokenChoice{runner}",
    ]


def _cut_graphs(config: Any) -> None:
    """Let the graphs of a compiled model end between its layers, where states can be acted on.

    Args:
        config: A `VllmConfig`, which is changed: a CUDA graph of a whole pass would leave the cuts out.
    """
    from vllm.config import CUDAGraphMode

    compilation = config.compilation_config
    is_in_pieces = compilation.splitting_ops_contain_attention()
    if is_in_pieces:
        compilation.splitting_ops.append(BETWEEN_LAYERS)
    if compilation.cudagraph_mode != CUDAGraphMode.NONE:
        compilation.cudagraph_mode = CUDAGraphMode.PIECEWISE if is_in_pieces else CUDAGraphMode.NONE


@contextmanager
def in_process(is_wanted: bool) -> Iterator[None]:  # noqa: FBT001
    """Let vLLM run its workers in this process inside the `with` block: on a CPU, only its environment says so."""
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    before = os.environ.get(name)
    if is_wanted:
        os.environ[name] = "0"
    try:
        yield
    finally:
        if is_wanted and before is None:
            del os.environ[name]
        elif before is not None:
            os.environ[name] = before

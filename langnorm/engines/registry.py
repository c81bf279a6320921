"""Engines by name; a model is loaded once per process, at the first request, however many chat models use it.

An engine of another package announces itself as an entry point of the group `langnorm.engines`: its name is what the
option `engine` takes, and it points to a function `load(model, model_kwargs) -> Engine`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any
from weakref import WeakValueDictionary

from langnorm.engines.base import Engine
from langnorm.errors import OptionError, closest

BUNDLED_MODEL = "abacus"
"""The name of the model that ships with langnorm."""

ENTRY_POINTS = "langnorm.engines"
"""The group of entry points of engines of other packages."""

Loader = Callable[[str, dict[str, Any]], Engine]
"""Loads a model: takes its name or folder and the option `model_kwargs`."""

_LOADERS: Mapping[str, tuple[str, str]] = {"transformers": ("langnorm.engines.transformers.loading", "load")}
"""The module and the function of the engines that ship with langnorm."""

_loaded: dict[str, Engine] = {}
_locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()  # of the models that are being loaded
_locks_guard = threading.Lock()


def get_engine(engine: str, model: str, model_kwargs: Mapping[str, Any]) -> Engine:
    """Return the engine that runs `model`, loading the weights if this process has not yet done so.

    Args:
        engine: Name of the engine, such as `"transformers"`.
        model: `"abacus"`, a folder, or a name on the Hugging Face hub.
        model_kwargs: For the engine's loader. That of transformers hands them to `from_pretrained`, except
            `layers_path`, which says where the decoder layers are, `chat_template`, which replaces the tokenizer's, and
            `prefix_cache_bytes`.

    Raises:
        OptionError: There is no such engine.
        ModelError: The weights cannot be loaded, or the decoder layers cannot be found.
    """
    check_engine_name(engine)
    key = _key(engine, model, model_kwargs)
    with _locks_guard:
        lock = _locks.setdefault(key, threading.Lock())
    with lock:
        loaded = _loaded.get(key)  # only once: `unload` does not wait for the lock
        if loaded is None:
            loaded = _loaded[key] = _get_loader(engine)(model, dict(model_kwargs))
        return loaded


def find_engine(engine: str, model: str, model_kwargs: Mapping[str, Any]) -> Engine | None:
    """Return the engine that `get_engine` returns if its weights are loaded, else None."""
    return _loaded.get(_key(engine, model, model_kwargs))


def _key(engine: str, model: str, model_kwargs: Mapping[str, Any]) -> str:
    return repr((engine, model, sorted(model_kwargs.items(), key=lambda item: item[0])))


def check_engine_name(engine: str) -> None:
    """Raise `OptionError` unless there is an engine of this name."""
    if engine in _LOADERS or engine in _other_engines():
        return
    names = [*_LOADERS, *_other_engines()]
    allowed = ", ".join(f'`"{name}"`' for name in names)
    msg = f"There is no engine `{engine}`. Use {allowed} or an Engine object.{closest(engine, names)}"
    raise OptionError(msg)


def unload() -> None:
    """Forget all weights; chat models load them again when they are next called."""
    with _locks_guard:
        _loaded.clear()


def _get_loader(engine: str) -> Loader:
    if engine in _LOADERS:
        module, name = _LOADERS[engine]
        loader: Loader = getattr(import_module(module), name)
        return loader
    other: Loader = _other_engines()[engine].load()
    return other


def _other_engines() -> dict[str, EntryPoint]:
    """Return the engines of other packages by name; those of langnorm cannot be replaced."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS) if entry.name not in _LOADERS}

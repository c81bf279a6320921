"""Engines by name; a model is loaded once per process, at the first request, however many chat models use it.

An engine of another package announces itself as an entry point of the group `langnorm.engines`: its name is what the
option `engine` takes, and it points to a function `load(model, model_kwargs, engine_kwargs) -> Engine`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any
from weakref import WeakValueDictionary

from langnorm.credentials import reveal_credentials
from langnorm.engines.base import Engine
from langnorm.errors import LangNormError, OptionError, closest

BUNDLED_MODEL = "abacus"
"""The name of the model that ships with langnorm."""

ENTRY_POINTS = "langnorm.engines"
"""The group of entry points of engines of other packages."""

AUTO_ENGINE = "auto"
"""In place of an engine's name: the first of those that ship with langnorm that suits the model."""

REMOTE_ENGINE = "remote"
"""In place of an engine's name: none of this process, but a server answers."""

Loader = Callable[[str, dict[str, Any], dict[str, Any]], Engine]
"""Loads a model: takes its name or folder and the options `model_kwargs` and `engine_kwargs`."""

MODULES: Mapping[str, str] = {
    "llamacpp": "langnorm.engines.llamacpp.loading",
    "transformers": "langnorm.engines.transformers.loading",
    "vllm": "langnorm.engines.vllm.loading",
}
"""The modules of the engines that ship with langnorm.

Each has a function `load`, and three more: `weights_key`, of the same arguments, whose text is the same for whatever
gives the same weights, so that two spellings of one model share its engine; `load_tokenizer`, which needs no weights;
and `suits`, which says whether it is the engine to take for a model where nobody names one.
"""

_log = logging.getLogger(__name__)
_loaded: dict[tuple[str, str], Engine] = {}
_others: dict[str, EntryPoint] = {}  # engines of other packages, by name, that were found so far
_locks: WeakValueDictionary[tuple[str, str], threading.Lock] = WeakValueDictionary()  # each for as long as it is used
_locks_guard = threading.Lock()


def get_engine(
    engine: str,
    model: str | os.PathLike[str],
    model_kwargs: Mapping[str, Any],
    engine_kwargs: Mapping[str, Any] | None = None,
) -> Engine:
    """Return the engine that runs `model`, loading the weights if this process has not yet done so.

    Args:
        engine: Name of the engine, such as `"transformers"`, or `"auto"`.
        model: `"abacus"`, a folder, a GGUF file, or a name on the Hugging Face hub.
        model_kwargs: For the engine's loader. That of transformers hands them to `from_pretrained`, except those of
            langnorm's own (`ChatFields.model_kwargs` has them).
        engine_kwargs: How the engine runs the model (`ChatFields.engine_kwargs` has them).

    Raises:
        OptionError: There is no such engine, or an argument has a value that is not allowed.
        ModelError: The weights cannot be loaded, or the decoder layers cannot be found.
    """
    check_engine_name(engine)
    model, model_kwargs = os.fspath(model), reveal_credentials(model_kwargs)
    engine_kwargs = reveal_credentials(engine_kwargs or {})
    engine = choose_engine(engine, model, model_kwargs)
    key = engine_key(engine, model, model_kwargs, engine_kwargs)
    with _locks_guard:
        lock = _locks.setdefault(key, threading.Lock())
    with lock:
        loaded = _loaded.get(key)  # only once: `unload` does not wait for the lock
        if loaded is None:
            loaded = _get_loader(engine)(model, dict(model_kwargs), dict(engine_kwargs))
            _log.info("%s runs on the engine %s", model, engine)
            # Only now may the files of a model of the hub be here, and say what its dtype is if nobody names one.
            key = engine_key(engine, model, model_kwargs, engine_kwargs)
            loaded = _loaded.setdefault(key, loaded)
        return loaded


def find_engine(
    engine: str,
    model: str | os.PathLike[str],
    model_kwargs: Mapping[str, Any],
    engine_kwargs: Mapping[str, Any] | None = None,
) -> Engine | None:
    """Return the engine that `get_engine` returns if its weights are loaded, else None."""
    if not _loaded:
        return None
    model, model_kwargs = os.fspath(model), reveal_credentials(model_kwargs)
    try:
        engine = choose_engine(engine, model, model_kwargs)
        return _loaded.get(engine_key(engine, model, model_kwargs, reveal_credentials(engine_kwargs or {})))
    except LangNormError:  # there is no such model, so it is not loaded
        return None


def choose_engine(engine: str, model: str, model_kwargs: Mapping[str, Any]) -> str:
    """Return the name of the engine that runs a model; another one than `engine` only where that is `"auto"`."""
    if engine != AUTO_ENGINE:
        return engine
    return next(name for name, module in MODULES.items() if import_module(module).suits(model, model_kwargs))


def engine_key(
    engine: str, model: str, model_kwargs: Mapping[str, Any], engine_kwargs: Mapping[str, Any]
) -> tuple[str, str]:
    """Return what is the same for all that share an engine; secrets among the arguments are plain texts."""
    if engine in MODULES:
        return engine, import_module(MODULES[engine]).weights_key(model, model_kwargs, engine_kwargs)
    return engine, repr((model, sorted(model_kwargs.items()), sorted(engine_kwargs.items())))


def check_engine_name(engine: str) -> None:
    """Raise `OptionError` unless there is an engine of this name."""
    if engine in (AUTO_ENGINE, REMOTE_ENGINE, *MODULES) or _find_other(engine):
        return
    names = [AUTO_ENGINE, REMOTE_ENGINE, *MODULES, *_others]
    allowed = ", ".join(f'`"{name}"`' for name in names)
    msg = f"There is no engine `{engine}`. Use {allowed} or an Engine object.{closest(engine, names)}"
    raise OptionError(msg)


def unload() -> None:
    """Free the memory of all weights that were loaded by name; chat models load them again when they are next called.

    Calls that run end as they would have; an engine that somebody else holds, such as one given as `engine`, stays.
    """
    with _locks_guard:
        _loaded.clear()


def _get_loader(engine: str) -> Loader:
    if engine in MODULES:
        return import_module(MODULES[engine]).load  # type: ignore[no-any-return]
    other = _find_other(engine)
    assert other, "check_engine_name has found it"
    return other.load()  # type: ignore[no-any-return]


def _find_other(engine: str) -> EntryPoint | None:
    """Return the engine of another package, if there is one of this name; those of langnorm cannot be replaced."""
    if engine not in _others:  # a look at all packages takes as long as a short answer
        found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
        for name in found.keys() - {AUTO_ENGINE, REMOTE_ENGINE, *MODULES}:
            _others[name] = found[name]
    return _others.get(engine)

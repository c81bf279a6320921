"""Weights are loaded once per process, at the first request, however many chat models use them."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import langnorm.abacus
from langnorm.engines.base import Engine
from langnorm.errors import ModelError, OptionError, closest
from langnorm.norms.profile import FILE_NAME, NormProfile

BUNDLED_MODEL = "abacus"

ENGINES = ("transformers",)

# Arguments of `from_pretrained` that say where a model comes from, and so hold for its tokenizer too.
_SHARED_ARGUMENTS = ("cache_dir", "code_revision", "force_download", "local_files_only", "revision",
                     "subfolder", "token", "trust_remote_code")  # fmt: skip

_ALLOWED = (
    "Give a folder with the weights, a name on the Hugging Face hub that this machine can reach, or "
    f'`model="{BUNDLED_MODEL}"` for the model that ships with langnorm.'
)

_loaded: dict[str, Engine] = {}
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_locks_guard = threading.Lock()


def get_engine(engine: str, model: str, model_kwargs: dict[str, Any]) -> Engine:
    """Return the engine that runs `model`, loading the weights if this process has not yet done so.

    Args:
        engine: `"transformers"`.
        model: `"abacus"`, a folder, or a name on the Hugging Face hub.
        model_kwargs: For `from_pretrained`; `layers_path` says where the decoder layers are,
            `chat_template` replaces the tokenizer's.

    Raises:
        OptionError: There is no such engine.
        ModelError: The weights cannot be loaded, or the decoder layers cannot be found.
    """
    check_engine_name(engine)
    key = repr((engine, str(model), sorted(model_kwargs.items(), key=lambda item: item[0])))
    with _locks_guard:
        lock = _locks[key]
    with lock:
        found = _loaded.get(key)  # only once: `unload` does not wait for the lock
        if found is None:
            found = _loaded[key] = _load(str(model), dict(model_kwargs))
        return found


def check_engine_name(engine: str) -> None:
    """Raise `OptionError` unless there is an engine of this name."""
    if engine not in ENGINES:
        allowed = ", ".join(f'`"{name}"`' for name in ENGINES)
        msg = f"There is no engine `{engine}`. Use {allowed} or an Engine object.{closest(engine, ENGINES)}"
        raise OptionError(msg)


def unload() -> None:
    """Forget all weights; chat models load them again when they are next called."""
    with _locks_guard:
        _loaded.clear()


def _load(model: str, model_kwargs: dict[str, Any]) -> Engine:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from langnorm.engines.transformers.engine import TransformersEngine

    source = str(langnorm.abacus.path()) if model == BUNDLED_MODEL else model
    _check_source(source)
    layers_path = model_kwargs.pop("layers_path", None)
    chat_template = model_kwargs.pop("chat_template", None)
    shared = {name: model_kwargs[name] for name in _SHARED_ARGUMENTS if name in model_kwargs}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **shared)
        weights = AutoModelForCausalLM.from_pretrained(source, **model_kwargs)
    except Exception as error:
        where = "is not a folder here, so it was looked for on the hub" if not Path(source).exists() else "exists"
        msg = (
            f"The model `{model}` could not be loaded ({type(error).__name__}: {_first_line(error)}). "
            f"`{model}` {where}. {_ALLOWED}"
        )
        raise ModelError(msg) from error
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return TransformersEngine(weights, tokenizer, layers_path, _profile_beside(source))


def _check_source(source: str) -> None:
    """Refuse at once what is neither a folder nor a name of the hub, which may take a minute to find out."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if Path(source).exists():
        return
    if "/" not in source and (hint := closest(source, [BUNDLED_MODEL])):
        msg = f"There is no model `{source}`. {_ALLOWED}{hint}"
        raise ModelError(msg)
    try:
        validate_repo_id(source)
    except HFValidationError:
        home = " Write your home folder out in place of `~`." if source.startswith("~") else ""
        msg = f"There is no folder `{source}`, and no model on the hub has such a name. {_ALLOWED}{home}"
        raise ModelError(msg) from None


def _profile_beside(source: str) -> NormProfile | None:
    """Return the profile in the folder of the weights, if there is one."""
    path = Path(source) / FILE_NAME
    return NormProfile.load(path) if path.is_file() else None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")

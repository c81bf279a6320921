"""Tokenizers by the name of their model: counting tokens needs no weights."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from langnorm.credentials import reveal_credentials
from langnorm.engines.registry import MODULES, choose_engine, engine_key, find_engine, get_engine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST = 8  # tokenizers that are kept
_tokenizers: dict[tuple[str, str], PreTrainedTokenizerBase] = {}
_lock = threading.Lock()


def get_tokenizer(
    engine: str,
    model: str | os.PathLike[str],
    model_kwargs: Mapping[str, Any],
    engine_kwargs: Mapping[str, Any] | None = None,
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model, with its chat template, and load no weights for it where the engine can do so.

    Args:
        engine: Name of the engine.
        model: As for `get_engine`.
        model_kwargs: As for `get_engine`.
        engine_kwargs: As for `get_engine`.

    Raises:
        OptionError: There is no such engine.
        ModelError: The tokenizer cannot be loaded.
    """
    if loaded := find_engine(engine, model, model_kwargs, engine_kwargs):
        return loaded.tokenizer
    model, model_kwargs = os.fspath(model), reveal_credentials(model_kwargs)
    engine_kwargs = reveal_credentials(engine_kwargs or {})
    engine = choose_engine(engine, model, model_kwargs)
    if engine not in MODULES:
        return get_engine(engine, model, model_kwargs, engine_kwargs).tokenizer
    key = engine_key(engine, model, model_kwargs, engine_kwargs)
    with _lock:
        if key not in _tokenizers:
            loader = import_module(MODULES[engine])
            while len(_tokenizers) >= _MOST:
                del _tokenizers[next(iter(_tokenizers))]
            _tokenizers[key] = loader.load_tokenizer(model, model_kwargs)
        return _tokenizers[key]

"""Tokenizers by the name of their model: counting tokens needs no weights."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from langnorm.credentials import reveal_credentials
from langnorm.engines.registry import find_engine, get_engine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LOADERS: Mapping[str, str] = {"transformers": "langnorm.engines.transformers.loading"}
"""The modules of the engines that can load a tokenizer alone, by a function `load_tokenizer`."""

_MOST = 8  # tokenizers that are kept
_tokenizers: dict[str, PreTrainedTokenizerBase] = {}
_lock = threading.Lock()


def get_tokenizer(
    engine: str, model: str | os.PathLike[str], model_kwargs: Mapping[str, Any]
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model, with its chat template, and load no weights for it where the engine can do so.

    Args:
        engine: Name of the engine.
        model: As for `get_engine`.
        model_kwargs: As for `get_engine`.

    Raises:
        OptionError: There is no such engine.
        ModelError: The tokenizer cannot be loaded.
    """
    if loaded := find_engine(engine, model, model_kwargs):
        return loaded.tokenizer
    if engine not in _LOADERS:
        return get_engine(engine, model, model_kwargs).tokenizer
    key = repr((engine, os.fspath(model), sorted(model_kwargs.items(), key=lambda item: item[0])))
    with _lock:
        if key not in _tokenizers:
            loader = import_module(_LOADERS[engine])
            while len(_tokenizers) >= _MOST:
                del _tokenizers[next(iter(_tokenizers))]
            _tokenizers[key] = loader.load_tokenizer(os.fspath(model), reveal_credentials(model_kwargs))
        return _tokenizers[key]

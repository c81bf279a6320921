"""Loads a GGUF file for llama.cpp, with its tokenizer and the profile beside it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langnorm.checks import build_options
from langnorm.engines.llamacpp.options import LlamaOptions
from langnorm.engines.transformers.files import checked_source, explained, gguf_path, kept_in, load_profile
from langnorm.engines.transformers.gguf import load_gguf_tokenizer_alone
from langnorm.engines.transformers.gguf_file import check_gguf, content_hash
from langnorm.engines.transformers.load_errors import read_template
from langnorm.engines.transformers.source import Source, find_source
from langnorm.errors import LangNormError, ModelError, OptionError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.llamacpp.engine import LlamaCppEngine

_ARGUMENTS = ("gguf_file", "gguf_cache", "chat_template")
"""Of `model_kwargs`, beside those that say where files are and how they come here."""


def suits(model: str, model_kwargs: Mapping[str, Any]) -> bool:
    """Return whether a model is a GGUF file, nothing is said of it that is for transformers, and llama.cpp is here."""
    try:
        source = find_source(model, model_kwargs)
    except LangNormError:
        return False
    is_ours = source.gguf_file is not None and not _foreign(source, model_kwargs)
    return is_ours and find_spec("llama_cpp") is not None  # last: a package that is missing is looked for everywhere


def weights_key(model: str, model_kwargs: Mapping[str, Any], engine_kwargs: Mapping[str, Any]) -> str:
    """Return a text that is the same for whatever gives the same engine; arguments and errors as for `load`."""
    options = build_options(LlamaOptions, "engine_kwargs", engine_kwargs)
    return repr((_find(model, model_kwargs).key, options))


def load(model: str, model_kwargs: Mapping[str, Any], engine_kwargs: Mapping[str, Any]) -> LlamaCppEngine:
    """Return the engine that runs a GGUF file by llama.cpp.

    Args:
        model: The file, a folder that has it, or a name on the Hugging Face hub with a file: `"repo/name:file.gguf"`.
        model_kwargs: `gguf_file` names the file in the folder or repository, `chat_template` replaces the file's,
            `gguf_cache` says whether or in which folder its tokenizer is kept for the next start, and `revision`,
            `token` and the like say how it comes here.
        engine_kwargs: The fields of `LlamaOptions`.

    Raises:
        OptionError: An argument is unknown, or has a value that is not allowed.
        ModelError: The file is not a whole GGUF file, or llama.cpp cannot run it.
        MissingDependencyError: llama-cpp-python or the package `gguf` is not installed.
    """
    from langnorm.engines.llamacpp.engine import LlamaCppEngine
    from langnorm.engines.llamacpp.library import import_llama_cpp

    options, source = build_options(LlamaOptions, "engine_kwargs", engine_kwargs), _find(model, model_kwargs)
    import_llama_cpp()
    template = read_template(source.chat_template)
    with explained(source):
        path = gguf_path(source)
        check_gguf(path)
        tokenizer = _load_tokenizer(path, source, template)
        content = content_hash(path, kept_in(source))
    return LlamaCppEngine(path, tokenizer, content, options, load_profile(path.parent), name=model)


def load_tokenizer(model: str, model_kwargs: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a GGUF file, with its chat template; arguments and errors as for `load`."""
    source = _find(model, model_kwargs)
    template = read_template(source.chat_template)
    with explained(source):
        return _load_tokenizer(gguf_path(source), source, template)


def _load_tokenizer(path: Path, source: Source, template: Any) -> PreTrainedTokenizerBase:
    tokenizer = load_gguf_tokenizer_alone(path, kept_in(source))
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def _find(model: str, model_kwargs: Mapping[str, Any]) -> Source:
    source = checked_source(model, model_kwargs)
    if foreign := _foreign(source, model_kwargs):
        msg = (
            f"llama.cpp does not know `{foreign[0]}` of `model_kwargs`. How it runs a model is said by "
            '`engine_kwargs`; for a model that transformers is to run, use `engine="transformers"`.'
        )
        raise OptionError(msg)
    if source.gguf_file is None:
        msg = (
            f"llama.cpp runs GGUF files, and `{model}` is not one. Name a file such as "
            '`"model.gguf"` or `"repo/name:file.gguf"`, or use `engine="transformers"`.'
        )
        raise ModelError(msg)
    return source


def _foreign(source: Source, model_kwargs: Mapping[str, Any]) -> list[str]:
    """Return the arguments that are not for llama.cpp."""
    return sorted(name for name in model_kwargs if name not in (*_ARGUMENTS, *source.file_arguments))

"""Loads a model of transformers, with its tokenizer and the profile beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langnorm.engines.checkpoint import hash_checkpoint
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.engines.transformers.gguf import cache_folder, load_gguf
from langnorm.engines.transformers.load_errors import (
    check_device,
    check_folder_of_model,
    explain,
    has_credentials,
    read_template,
)
from langnorm.engines.transformers.source import Source, find_source
from langnorm.errors import LangNormError
from langnorm.norms.profile import FILE_NAME, NormProfile

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def weights_key(model: str, model_kwargs: Mapping[str, Any]) -> str:
    """Return a text that is the same for whatever gives the same weights in memory; arguments as for `load`."""
    return find_source(model, model_kwargs).key


def load(model: str, model_kwargs: Mapping[str, Any]) -> TransformersEngine:
    """Return the engine that runs a model.

    Args:
        model: `"abacus"`, a folder, a GGUF file, a name on the Hugging Face hub, or one with a file:
            `"repo/name:file.gguf"`.
        model_kwargs: For `from_pretrained`; `layers_path` says where the decoder layers are, `chat_template` replaces
            the tokenizer's, `gguf_file` names a GGUF file in the folder or repository, and `gguf_cache` says whether
            or in which folder its unpacked weights are kept.

    Raises:
        OptionError: An argument has a value that is not allowed.
        ModelError: The weights cannot be loaded, or the decoder layers cannot be found.
        MissingDependencyError: A package is missing that the model needs.
    """
    source = find_source(model, model_kwargs)
    template = read_template(source.chat_template)
    check_folder_of_model(source)
    check_device(source.arguments.get("device_map"))
    try:
        weights, tokenizer, folder, beside = _read_gguf(source) if source.gguf_file else _read(source)
    except LangNormError:
        raise
    except Exception as error:
        explained = explain(error, source)
        if has_credentials(error, source):  # tracebacks print causes
            raise explained from None
        raise explained from error
    if template is not None:
        tokenizer.chat_template = template
    return TransformersEngine(
        weights,
        tokenizer,
        source.layers_path,
        profile=_load_profile(beside),
        weights_hash=hash_checkpoint(folder) if folder else None,
        name=model,
    )


_Read = tuple["PreTrainedModel", "PreTrainedTokenizerBase", Path | None, Path | None]
"""A model, its tokenizer, the folder of the weights as they were read, and that in which a profile may lie."""


def _read(source: Source) -> _Read:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source.location, **source.shared_arguments)
    weights: PreTrainedModel = AutoModelForCausalLM.from_pretrained(source.location, **source.arguments)
    folder = source.folder if source.is_local else _file_on_hub(source, "config.json", local_files_only=True).parent
    return weights, tokenizer, folder, folder


def _read_gguf(source: Source) -> _Read:
    file = str(source.gguf_file)
    path = source.folder / file if source.is_local else _file_on_hub(source, file)
    arguments = {name: value for name, value in source.arguments.items() if name not in source.file_arguments}
    cache = cache_folder() if source.gguf_cache is True else Path(source.gguf_cache) if source.gguf_cache else None
    weights, tokenizer, folder = load_gguf(path, arguments, cache)
    return weights, tokenizer, folder, path.parent


def _file_on_hub(source: Source, file: str, **given: Any) -> Path:
    """Return a file of a repository on the hub, downloaded if it is not here yet."""
    from transformers.utils.hub import cached_file

    return Path(str(cached_file(source.location, file, **{**source.file_arguments, **given})))


def _load_profile(folder: Path | None) -> NormProfile | None:
    """Return the profile in the folder of the weights, if there is one."""
    path = folder / FILE_NAME if folder else None
    return NormProfile.load(path) if path and path.is_file() else None

"""Loads a model of transformers, with its tokenizer and the profile beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langnorm.engines.checkpoint import hash_checkpoint
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.engines.transformers.files import (
    checked_source,
    explained,
    file_on_hub,
    gguf_path,
    kept_in,
    load_profile,
)
from langnorm.engines.transformers.gguf import load_gguf, load_gguf_tokenizer
from langnorm.engines.transformers.load_errors import check_device, read_template
from langnorm.engines.transformers.packed_weights import check_form, pack_weights
from langnorm.engines.transformers.prefix_cache import check_prefix_cache_bytes
from langnorm.engines.transformers.source import Source, find_source
from langnorm.errors import OptionError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def suits(model: str, model_kwargs: Mapping[str, Any]) -> bool:  # noqa: ARG001
    """Return True: whatever no other engine is better at."""
    return True


def weights_key(model: str, model_kwargs: Mapping[str, Any], engine_kwargs: Mapping[str, Any]) -> str:
    """Return a text that is the same for whatever gives the same weights in memory; arguments as for `load`."""
    _check_none(engine_kwargs)
    return find_source(model, model_kwargs).key


def load(model: str, model_kwargs: Mapping[str, Any], engine_kwargs: Mapping[str, Any]) -> TransformersEngine:
    """Return the engine that runs a model.

    Args:
        model: `"abacus"`, a folder, a GGUF file, a name on the Hugging Face hub, or one with a file:
            `"repo/name:file.gguf"`.
        model_kwargs: For `from_pretrained`; `layers_path` says where the decoder layers are, `chat_template` replaces
            the tokenizer's, `gguf_file` names a GGUF file in the folder or repository, `gguf_cache` says whether or in
            which folder its unpacked weights are kept, `prefix_cache_bytes` is the most memory for the prompts of
            recent calls, and `packed_weights` (`"int8"` or `"int4"`) makes decode steps on a CPU faster.
        engine_kwargs: Nothing: how the model is run is said by `model_kwargs`.

    Raises:
        OptionError: An argument has a value that is not allowed.
        ModelError: The weights cannot be loaded, or the decoder layers cannot be found.
        MissingDependencyError: A package is missing that the model needs.
    """
    _check_none(engine_kwargs)
    source = checked_source(model, model_kwargs)
    template = read_template(source.chat_template)
    check_device(source.arguments.get("device_map"))
    check_prefix_cache_bytes(source.prefix_cache_bytes)
    check_form(source.packed_weights, source.arguments.get("dtype"))
    with explained(source):
        weights, tokenizer, folder, beside = _read_gguf(source) if source.gguf_file else _read(source)
    if template is not None:
        tokenizer.chat_template = template
    if source.packed_weights is not None:
        pack_weights(weights, source.packed_weights)
    return TransformersEngine(
        weights,
        tokenizer,
        source.layers_path,
        profile=load_profile(beside),
        weights_hash=hash_checkpoint(folder) if folder else None,
        prefix_cache_bytes=source.prefix_cache_bytes,
        name=model,
    )


def load_tokenizer(model: str, model_kwargs: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model, with its chat template; arguments and errors as for `load`.

    No weights are loaded, but those of a GGUF file are unpacked, where they are kept.
    """
    source = checked_source(model, model_kwargs)
    template = read_template(source.chat_template)
    with explained(source):
        if source.gguf_file:
            tokenizer = load_gguf_tokenizer(gguf_path(source), str(source.arguments["dtype"]), kept_in(source))
        else:
            tokenizer = _read_tokenizer(source)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def _check_none(engine_kwargs: Mapping[str, Any]) -> None:
    if engine_kwargs:
        msg = (
            f"The engine `transformers` has no `engine_kwargs`, and `{next(iter(engine_kwargs))}` was given. Use "
            "`model_kwargs`, which goes to `from_pretrained`."
        )
        raise OptionError(msg)


_Read = tuple["PreTrainedModel", "PreTrainedTokenizerBase", Path | None, Path | None]
"""A model, its tokenizer, the folder of the weights as they were read, and that in which a profile may lie."""


def _read(source: Source) -> _Read:
    from transformers import AutoModelForCausalLM

    tokenizer = _read_tokenizer(source)
    weights: PreTrainedModel = AutoModelForCausalLM.from_pretrained(source.location, **source.arguments)
    folder = source.folder if source.is_local else file_on_hub(source, "config.json", local_files_only=True).parent
    return weights, tokenizer, folder, folder


def _read_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source.location, **source.shared_arguments)
    return tokenizer


def _read_gguf(source: Source) -> _Read:
    path = gguf_path(source)
    arguments = {name: value for name, value in source.arguments.items() if name not in source.file_arguments}
    weights, tokenizer, folder = load_gguf(path, arguments, kept_in(source))
    return weights, tokenizer, folder, path.parent

"""Loads a model for vLLM, with its tokenizer and the profile beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langnorm.engines.checkpoint import hash_checkpoint
from langnorm.engines.transformers import loading as transformers_loading
from langnorm.engines.transformers.files import checked_source, explained, file_on_hub, load_profile
from langnorm.engines.transformers.load_errors import has_credentials, read_template
from langnorm.engines.vllm.options import OWN, VllmOptions
from langnorm.errors import LangNormError, ModelError, OptionError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.transformers.source import Source
    from langnorm.engines.vllm.core import VllmCore
    from langnorm.engines.vllm.engine import VllmEngine

_ARGUMENTS = {
    "cache_dir": "download_dir",
    "code_revision": "code_revision",
    "dtype": "dtype",
    "revision": "revision",
    "token": "hf_token",
    "trust_remote_code": "trust_remote_code",
}
"""Those of `model_kwargs` that are for vLLM too, and what it calls them."""

_OWN = ("chat_template", "local_files_only")


def suits(model: str, model_kwargs: Mapping[str, Any]) -> bool:  # noqa: ARG001
    """Return False: it takes much memory for itself, so it is taken only where somebody asks for it."""
    return False


def weights_key(model: str, model_kwargs: Mapping[str, Any], engine_kwargs: Mapping[str, Any]) -> str:
    """Return a text that is the same for whatever gives the same engine; arguments and errors as for `load`."""
    options = VllmOptions.from_dict(engine_kwargs)
    arguments = sorted(options.arguments.items())
    own = [getattr(options, name) for name in OWN]
    return repr((_find(model, model_kwargs).key, own, arguments))


def load(model: str, model_kwargs: Mapping[str, Any], engine_kwargs: Mapping[str, Any]) -> VllmEngine:
    """Return the engine that runs a model by vLLM.

    Args:
        model: `"abacus"`, a folder, or a name on the Hugging Face hub.
        model_kwargs: `dtype`, `revision`, `token`, `cache_dir`, `trust_remote_code` and `code_revision`, as
            `from_pretrained` has them; `chat_template` replaces the tokenizer's.
        engine_kwargs: `in_process`, `interventions`, `verbose`, and arguments of vLLM's `EngineArgs`.

    Raises:
        OptionError: An argument is unknown, or has a value that is not allowed.
        ModelError: There is no such model, or vLLM cannot run it.
        MissingDependencyError: vLLM is not installed.
    """
    from langnorm.engines.vllm.core import VllmCore

    options, source = VllmOptions.from_dict(engine_kwargs), _find(model, model_kwargs)
    tokenizer = _load_tokenizer(source, model, model_kwargs)
    if source.chat_template is not None and not source.is_local:
        file_on_hub(source, "config.json")  # before it is asked for the dtype
    arguments = {_ARGUMENTS[name]: value for name, value in source.arguments.items() if name in _ARGUMENTS}
    if source.dtype is not None:  # left to itself, vLLM narrows float32, and norms would not be those of transformers
        arguments["dtype"] = source.dtype
    location = str(source.folder) if source.is_local else source.location
    try:
        core = VllmCore.start({"model": location, **arguments}, options)
    except LangNormError:
        raise
    except Exception as error:
        if has_credentials(error, source):  # tracebacks print causes
            raise ModelError(_reason(type(error).__name__, options)) from None
        raise ModelError(_reason(error, options)) from error
    return _engine(core, source, tokenizer, model)


def engine_over(core: VllmCore, model: str, model_kwargs: Mapping[str, Any]) -> VllmEngine:
    """Return the engine over vLLM's engine for a model, which somebody else has started.

    Args:
        core: It.
        model: A folder, or a name on the Hugging Face hub.
        model_kwargs: As for `load`.

    Raises:
        ModelError: There is no such model, or a trial shows that norms do not come back as they should.
    """
    source = _find(model, model_kwargs)
    return _engine(core, source, _load_tokenizer(source, model, model_kwargs), model)


def _load_tokenizer(source: Source, model: str, model_kwargs: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    template = read_template(source.chat_template)
    with explained(source):
        tokenizer = transformers_loading.load_tokenizer(model, model_kwargs)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def _engine(core: VllmCore, source: Source, tokenizer: PreTrainedTokenizerBase, name: str) -> VllmEngine:
    from langnorm.engines.vllm.engine import VllmEngine

    with explained(source):
        folder = source.folder if source.is_local else file_on_hub(source, "config.json", local_files_only=True).parent
        return VllmEngine(core, tokenizer, hash_checkpoint(folder), load_profile(folder), name=name)


def _reason(error: object, options: VllmOptions) -> str:
    """Return why a model does not start."""
    reason = f"vLLM could not start this model: {error}"
    if options.in_process:
        return reason
    return (
        f"{reason} What its processes say stands above. A script that loads a model needs "
        '`if __name__ == "__main__":` around it, or `engine_kwargs={"in_process": True}`.'
    )


def load_tokenizer(model: str, model_kwargs: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model, with its chat template; arguments and errors as for `load`."""
    _find(model, model_kwargs)
    return transformers_loading.load_tokenizer(model, model_kwargs)


def _find(model: str, model_kwargs: Mapping[str, Any]) -> Source:
    source = checked_source(model, model_kwargs)
    if source.gguf_file is not None:
        msg = f'vLLM reads safetensors, and `{model}` is a GGUF file. Use `engine="llamacpp"`.'
        raise ModelError(msg)
    if foreign := sorted(name for name in model_kwargs if name not in (*_ARGUMENTS, *_OWN, "torch_dtype")):
        msg = (
            f"vLLM does not know `{foreign[0]}` of `model_kwargs`. How it runs a model is said by `engine_kwargs`, "
            "such as `tensor_parallel_size` for several GPUs."
        )
        raise OptionError(msg)
    return source

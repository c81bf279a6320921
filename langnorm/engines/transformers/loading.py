"""Loads a model of transformers, with its tokenizer and the profile beside its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import langnorm.abacus
from langnorm.engines.checkpoint import hash_checkpoint
from langnorm.engines.registry import BUNDLED_MODEL
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.engines.transformers.prefix_cache import check_prefix_cache_bytes
from langnorm.errors import ModelError, closest
from langnorm.norms.profile import FILE_NAME, NormProfile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Arguments of `from_pretrained` that say where a model comes from, and so hold for its tokenizer too.
_SHARED_ARGUMENTS = ("cache_dir", "code_revision", "force_download", "local_files_only", "revision",
                     "subfolder", "token", "trust_remote_code")  # fmt: skip

_WHERE_FROM = ("cache_dir", "revision", "subfolder")
"""Those of them that say where the files of a model lie on this machine."""

_ALLOWED = (
    "Give a folder with the weights, a name on the Hugging Face hub that this machine can reach, or "
    f'`model="{BUNDLED_MODEL}"` for the model that ships with langnorm.'
)


def load(model: str, model_kwargs: dict[str, Any]) -> TransformersEngine:
    """Return the engine that runs a model.

    Args:
        model: `"abacus"`, a folder, or a name on the Hugging Face hub.
        model_kwargs: For `from_pretrained`; `layers_path` says where the decoder layers are, `chat_template` replaces
            the tokenizer's, `prefix_cache_bytes` is the most memory for the prompts of recent calls.

    Raises:
        ModelError: The weights cannot be loaded, or the decoder layers cannot be found.
        OptionError: `prefix_cache_bytes` is not a number of bytes.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(model, model_kwargs)
    source = _source(model)
    arguments = {name: value for name, value in model_kwargs.items() if name != "chat_template"}
    layers_path, prefix_cache_bytes = arguments.pop("layers_path", None), arguments.pop("prefix_cache_bytes", None)
    check_prefix_cache_bytes(prefix_cache_bytes)  # before minutes of loading
    shared = {name: arguments[name] for name in _SHARED_ARGUMENTS if name in arguments}
    try:
        weights = AutoModelForCausalLM.from_pretrained(source, **arguments)
    except Exception as error:
        raise _load_error(model, error) from error
    folder = _checkpoint_folder(source, {name: shared[name] for name in _WHERE_FROM if name in shared})
    return TransformersEngine(
        weights,
        tokenizer,
        layers_path,
        profile=_load_profile(folder),
        weights_hash=hash_checkpoint(folder) if folder else None,
        prefix_cache_bytes=prefix_cache_bytes,
    )


def load_tokenizer(model: str, model_kwargs: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model, with its chat template; arguments and errors as for `load`."""
    from transformers import AutoTokenizer

    source = _source(model)
    _check_source(source)
    shared = {name: model_kwargs[name] for name in _SHARED_ARGUMENTS if name in model_kwargs}
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **shared)
    except Exception as error:
        raise _load_error(model, error) from error
    if (chat_template := model_kwargs.get("chat_template")) is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def _source(model: str) -> str:
    return str(langnorm.abacus.path()) if model == BUNDLED_MODEL else model


def _load_error(model: str, error: Exception) -> ModelError:
    where = "is not a folder here, so it was looked for on the hub" if not Path(model).exists() else "exists"
    msg = (
        f"The model `{model}` could not be loaded ({type(error).__name__}: {_first_line(error)}). "
        f"`{model}` {where}. {_ALLOWED}"
    )
    return ModelError(msg)


def _checkpoint_folder(source: str, where: dict[str, Any]) -> Path | None:
    """Return the folder on this machine that a model's files were read from, or None if it cannot be told."""
    if Path(source).is_dir():
        return Path(source, str(where.get("subfolder", "")))
    from transformers.utils.hub import cached_file

    config = cached_file(source, "config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False,
                         _raise_exceptions_for_connection_errors=False, **where)  # fmt: skip
    return Path(str(config)).parent if config else None


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


def _load_profile(folder: Path | None) -> NormProfile | None:
    """Return the profile in the folder of the weights, if there is one."""
    path = folder / FILE_NAME if folder else None
    return NormProfile.load(path) if path and path.is_file() else None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")

"""GGUF files: unpacked by transformers, and kept unpacked on disk for the next start.

An unpacked file is a folder like that of any other model: the weights that the file's blocks stand for, in a float
type. Blocks are left packed only where a `GgufConfig` asks for it: such weights cannot be saved, and transformers
computes with them on few architectures and devices.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from filelock import FileLock

from langnorm.engines.transformers.gguf_file import check_gguf, content_hash
from langnorm.errors import LangNormError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CACHE_VARIABLE = "LANGNORM_CACHE"
"""The environment variable that says where unpacked weights are kept."""

_FORMAT = 1  # of what is kept: another number leaves what was kept before aside
_WEIGHTS, _TOKENIZERS = "gguf", "gguf-tokenizers"  # folders of what is kept
_unpacking = threading.Lock()


class _UnwritableError(Exception):
    """The unpacked weights cannot be kept."""


def cache_folder() -> Path:
    """Return where unpacked weights are kept: `$LANGNORM_CACHE`, or else a folder beside the cache of the hub."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    from huggingface_hub.constants import HF_HOME  # of `$HF_HOME`, `$XDG_CACHE_HOME` or `~/.cache`

    return Path(HF_HOME, "langnorm")


def load_gguf(
    path: Path, arguments: Mapping[str, Any], kept_in: Path | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Path | None]:
    """Return the model and the tokenizer of a GGUF file, and the folder of the unpacked weights where they are kept.

    Args:
        path: The file.
        arguments: Of `from_pretrained`, with the `dtype` in which it is unpacked.
        kept_in: Where unpacked weights are kept; None for nowhere.

    Raises:
        MissingDependencyError: The package `gguf` is not installed.
        ModelError: The file cannot be read; whatever else transformers raises goes through.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    is_packed = isinstance(arguments.get("quantization_config"), GgufConfig)
    folder = None if is_packed else _kept_folder(path, str(arguments["dtype"]), kept_in)
    if folder is None:
        check_gguf(path)
        with _unpacking_tools():
            return _unpack(path, arguments), _unpack_tokenizer(path), None
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, **arguments)
    return model, AutoTokenizer.from_pretrained(folder), folder


def load_gguf_tokenizer(path: Path, dtype: str, kept_in: Path | None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a GGUF file; arguments and errors as for `load_gguf`.

    Where weights are kept they are unpacked as well, for the call that follows.
    """
    return _read_tokenizer(path, _kept_folder(path, dtype, kept_in))


def load_gguf_tokenizer_alone(path: Path, kept_in: Path | None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a GGUF file, which is kept where that is wanted; no weights are unpacked."""
    return _read_tokenizer(path, _kept(path, kept_in, _TOKENIZERS, "tokenizer", _save_tokenizer))


def _read_tokenizer(path: Path, kept: Path | None) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    if kept:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(kept)
        return tokenizer
    check_gguf(path)
    with _unpacking_tools():
        return _unpack_tokenizer(path)


def _unpack(path: Path, arguments: Mapping[str, Any]) -> PreTrainedModel:
    """Return the dense model of a GGUF file, with nothing left in it that says where it came from."""
    from transformers import AutoModelForCausalLM, GgufConfig

    given = {"quantization_config": GgufConfig(dequantize=True), **arguments}
    with tempfile.TemporaryDirectory() as empty:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(empty, gguf_file=str(path.absolute()), **given)
    return model


def _unpack_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    # From an empty folder: beside the file may lie the tokenizer of another model, which would be taken.
    with tempfile.TemporaryDirectory() as empty:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(empty, gguf_file=str(path.absolute()))
    return tokenizer


def _kept_folder(path: Path, dtype: str, kept_in: Path | None) -> Path | None:
    """Return the folder with the unpacked weights of a GGUF file, or None where they are not or cannot be kept."""

    def save(folder: Path) -> None:
        model, tokenizer = _unpack(path, {"dtype": dtype}), _unpack_tokenizer(path)
        with _writing():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    return _kept(path, kept_in, _WEIGHTS, dtype, lambda _path, folder: save(folder))


def _save_tokenizer(path: Path, folder: Path) -> None:
    tokenizer = _unpack_tokenizer(path)
    with _writing():
        tokenizer.save_pretrained(folder)


def _kept(path: Path, kept_in: Path | None, kind: str, form: str, save: Callable[[Path, Path], None]) -> Path | None:
    """Return the folder with what was made of a GGUF file, or None where it is not or cannot be kept.

    Args:
        path: The file.
        kept_in: Where such folders are; None for nowhere.
        kind: What it is, and the name of the folder of its kind.
        form: In which form of several it is.
        save: Makes it of the file, in a folder.
    """
    if kept_in is None:
        return None
    try:
        return _made_once(path, kept_in, kind, form, save)
    except _UnwritableError as error:
        warnings.warn(
            f"What is unpacked of `{path}` cannot be kept in `{kept_in}` ({error}), so it is unpacked at every "
            f"start. Name a folder with room in the environment variable `{CACHE_VARIABLE}`, or say "
            '`model_kwargs={"gguf_cache": False}`.',
            stacklevel=2,
        )
        return None


def _made_once(path: Path, kept_in: Path, kind: str, form: str, save: Callable[[Path, Path], None]) -> Path:
    """Return the folder with what was made of a GGUF file, made if it is not there yet.

    A folder has its name only when it is whole. Processes that want the same one wait for the first.
    """
    try:
        kept_in.mkdir(parents=True, exist_ok=True)
        name = f"{content_hash(path, kept_in)}-{form}-transformers{version('transformers')}-{_FORMAT}"
        folder, partial_folder = kept_in / kind / name, kept_in / kind / f"{name}.partial"
        if folder.is_dir():
            return folder
        folder.parent.mkdir(exist_ok=True)
        lock = FileLock(folder.with_name(f"{name}.lock"))
        lock.acquire()
    except (OSError, LangNormError) as error:
        raise _UnwritableError(str(error)) from error
    try:
        if folder.is_dir():
            return folder
        check_gguf(path)
        shutil.rmtree(partial_folder, ignore_errors=True)  # of a process that was killed
        with _unpacking_tools():
            save(path, partial_folder)
        with _writing():
            partial_folder.replace(folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
        lock.release()
    return folder


@contextmanager
def _writing() -> Iterator[None]:
    """Turn what is raised when files cannot be written into `_UnwritableError`."""
    try:
        yield
    except Exception as error:  # safetensors has an error of its own for a full disk
        raise _UnwritableError(str(error)) from error


@contextmanager
def _unpacking_tools() -> Iterator[None]:
    """Let transformers unpack without reading the same things over and over, and with progress bars on terminals alone.

    The header of the file, which it reads for the config, the tokenizer and the weights, and the names of the tensors,
    which it works out for every module of the model, are more than half of the work.
    """
    import gguf
    from tqdm.auto import tqdm
    from transformers import modeling_gguf_pytorch_utils as unpacking
    from transformers.utils import logging

    with _unpacking, ExitStack() as tools:
        if not sys.stderr.isatty() and logging.is_progress_bar_enabled():
            logging.disable_progress_bar()
            tools.callback(logging.enable_progress_bar)
        # That of the unpacking itself does not ask whether bars are wanted.
        bar = partial(tqdm, disable=not logging.is_progress_bar_enabled())
        tools.enter_context(patch.object(unpacking, "tqdm", bar))
        for name in ("GGUFReader", "get_tensor_name_map"):
            tools.enter_context(patch.object(gguf, name, cache(getattr(gguf, name))))
        yield

"""GGUF files: checked, unpacked by transformers, and kept unpacked on disk for the next start.

An unpacked file is a folder like that of any other model: the weights that the file's blocks stand for, in a float
type. Blocks are left packed only where a `GgufConfig` asks for it: such weights cannot be saved, and transformers
computes with them on few architectures and devices.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from filelock import FileLock

from langnorm.errors import LangNormError, MissingDependencyError, ModelError
from langnorm.files import write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CACHE_VARIABLE = "LANGNORM_CACHE"
"""The environment variable that says where unpacked weights are kept."""

_FORMAT = 1  # of what is kept: another number leaves what was kept before aside
_unpacking = threading.Lock()


class _UnwritableError(Exception):
    """The unpacked weights cannot be kept."""


def cache_folder() -> Path:
    """Return where unpacked weights are kept: `$LANGNORM_CACHE`, or else a folder beside the cache of the hub."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    from huggingface_hub.constants import HF_HOME  # of `$HF_HOME`, `$XDG_CACHE_HOME` or `~/.cache`

    return Path(HF_HOME, "langnorm")


def check_gguf(path: Path) -> None:
    """Do nothing if a file is a whole GGUF file of one model, in a form that transformers can read.

    Raises:
        MissingDependencyError: The package `gguf` is not installed.
        ModelError: It is not; the message says what it is.
    """
    from transformers.integrations.gguf.reader import read_gguf_metadata

    if find_spec("gguf") is None:
        msg = 'GGUF files need the package `gguf`. Install it with `pip install "langnorm[gguf]"`.'
        raise MissingDependencyError(msg)
    with path.open("rb") as file:
        magic = file.read(16)
    if magic.startswith(b"version https://"):
        msg = f"`{path}` is only a pointer to a file of Git LFS. Fetch the file itself: `git lfs pull`."
        raise ModelError(msg)
    if not magic.startswith(b"GGUF"):
        msg = f"`{path}` is not a GGUF file. Give one, or a folder with the weights in safetensors."
        raise ModelError(msg)
    try:
        metadata, _ = read_gguf_metadata(str(path))
    except (ValueError, KeyError, struct.error, IndexError, OverflowError, MemoryError) as error:
        raise _cut_short(path, str(error)) from error
    if metadata.get("split.count", 1) > 1:
        msg = (
            f"`{path}` is one of {metadata['split.count']} parts of a model. Join them with "
            "`llama-gguf-split --merge`, and give the whole file."
        )
        raise ModelError(msg)
    architecture, readable = str(metadata["general.architecture"]), readable_architectures()
    if architecture.replace("-", "").replace("_", "") not in {name.replace("_", "") for name in readable}:
        msg = (
            f"`{path}` holds a model of the architecture `{architecture}`, which transformers "
            f"{version('transformers')} cannot read from GGUF. It can read {', '.join(readable)}. Give the folder or "
            "the name of the same model in safetensors."
        )
        raise ModelError(msg)
    _check_size(path)


def readable_architectures() -> list[str]:
    """Return the architectures of language models that transformers reads from GGUF, by name."""
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    of_metadata, encoders = {"general", "tokenizer"}, {"t5", "umt5"}
    return sorted({*GGUF_CONFIG_ARCHS, *GGUF_SUPPORTED_ARCHITECTURES} - of_metadata - encoders)


def _check_size(path: Path) -> None:
    from transformers.integrations.gguf.reader import GgufHeader

    try:
        header = GgufHeader.from_file(str(path))
    except ValueError:  # of block types whose size it does not know
        return
    end = header.data_start + max((tensor.offset + tensor.nbytes for tensor in header.tensors), default=0)
    if (size := path.stat().st_size) < end:
        raise _cut_short(path, f"{size} of {end} bytes")


def _cut_short(path: Path, reason: str) -> ModelError:
    return ModelError(f"The GGUF file `{path}` is cut short or damaged ({reason}). Download it again.")


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
    from transformers import AutoTokenizer

    if folder := _kept_folder(path, dtype, kept_in):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
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
    if kept_in is None:
        return None
    try:
        return _unpacked_folder(path, dtype, kept_in)
    except _UnwritableError as error:
        warnings.warn(
            f"The unpacked weights of `{path}` cannot be kept in `{kept_in}` ({error}), so they are unpacked at every "
            f"start. Name a folder with room in the environment variable `{CACHE_VARIABLE}`, or say "
            '`model_kwargs={"gguf_cache": False}`.',
            stacklevel=2,
        )
        return None


def _unpacked_folder(path: Path, dtype: str, kept_in: Path) -> Path:
    """Return the folder with the unpacked weights of a GGUF file, made if it is not there yet.

    A folder has its name only when it is whole. Processes that want the same one wait for the first.
    """
    try:
        kept_in.mkdir(parents=True, exist_ok=True)
        content = content_hash(path, kept_in)
        name = f"{content}-{dtype}-transformers{version('transformers')}-{_FORMAT}"
        folder, partial_folder = kept_in / "gguf" / name, kept_in / "gguf" / f"{name}.partial"
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
            model, tokenizer = _unpack(path, {"dtype": dtype}), _unpack_tokenizer(path)
            try:
                model.save_pretrained(partial_folder)
                tokenizer.save_pretrained(partial_folder)
                partial_folder.replace(folder)
            except Exception as error:  # safetensors has an error of its own for a full disk
                raise _UnwritableError(str(error)) from error
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
        lock.release()
    return folder


def content_hash(path: Path, kept_in: Path | None) -> str:
    """Return a hash of what a file holds.

    Args:
        path: The file.
        kept_in: Where the hash is kept, so that the file is read once, until its size or one of its times changes;
            None for nowhere.
    """
    if kept_in is None:
        return _hash_file(path)
    stat = path.stat()
    state = (os.path.realpath(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    note = kept_in / "hashes" / hashlib.blake2b(repr(state).encode(), digest_size=16).hexdigest()
    if note.is_file():
        return note.read_text(encoding="utf-8")
    content = _hash_file(path)
    with suppress(OSError, LangNormError):  # then it is read again at the next start
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, content)
    return content


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


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

"""A GGUF file as it lies on disk: whether it is a whole one that can be read, and what identifies it."""

from __future__ import annotations

import hashlib
import os
import struct
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from langnorm.errors import LangNormError, MissingDependencyError, ModelError
from langnorm.files import write_atomically


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

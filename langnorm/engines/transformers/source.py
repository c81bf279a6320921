"""What is to be loaded: where a model's files are, and with which arguments they are read.

Two spellings of the same have one key, so that a process keeps one copy of the weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import langnorm.abacus
from langnorm.checks import check_flag, refuse
from langnorm.engines.registry import BUNDLED_MODEL
from langnorm.errors import ModelError, OptionError, closest

SUFFIX = ".gguf"
_MAGIC = b"GGUF"

_DTYPES = {"auto": "auto", "float": "float32", "half": "float16", "double": "float64"} | {
    name: name for name in ("float32", "bfloat16", "float16", "float64")
}
"""The names of dtypes that are taken, and what each means."""

_ACCESS = ("cache_dir", "force_download", "local_files_only", "token", "use_auth_token", "proxies")
"""Arguments that say how files come here; the weights are the same whatever they say."""

_WHERE = ("revision", "subfolder")
"""Arguments that say which of a repository's files are meant."""

_SHARED = (*_ACCESS, *_WHERE, "code_revision", "trust_remote_code")
"""Arguments that hold for the tokenizer too."""

_OWN = ("layers_path", "chat_template", "prefix_cache_bytes", "packed_weights")
"""Arguments of langnorm's own, which change what is made of a model."""

_DEFAULTS = {"trust_remote_code": False, "revision": "main", "subfolder": ""}

_ALLOWED = (
    "Give a folder with the weights, a GGUF file, a name on the Hugging Face hub that this machine can reach, or "
    f'`model="{BUNDLED_MODEL}"` for the model that ships with langnorm.'
)


@dataclass(frozen=True)
class Source:
    """A model to load.

    Attributes:
        name: As the user named it.
        location: A folder of this machine, or the name of a repository on the hub.
        gguf_file: Name of the GGUF file in it; None for safetensors or whatever else transformers reads.
        arguments: Of `from_pretrained`.
        layers_path: Where the decoder layers are, or None.
        chat_template: What replaces that of the tokenizer, or None.
        gguf_cache: Where the converted weights of a GGUF file are kept: True for the usual folder, False for nowhere.
        prefix_cache_bytes: Most memory for the prompts of recent calls, or None for the engine's own measure.
        packed_weights: What decode steps on a CPU read, `"int8"` or `"int4"`; None for the weights as they are.
    """

    name: str
    location: str
    gguf_file: str | None
    arguments: Mapping[str, Any]
    layers_path: str | None = None
    chat_template: Any = None
    gguf_cache: bool | str = True
    prefix_cache_bytes: int | None = None
    packed_weights: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the files are in a folder of this machine."""
        return Path(self.location).is_dir()

    @property
    def shared_arguments(self) -> dict[str, Any]:
        """The arguments that hold for the tokenizer too."""
        return {name: self.arguments[name] for name in _SHARED if name in self.arguments}

    @property
    def file_arguments(self) -> dict[str, Any]:
        """The arguments that say where files are and how they come here."""
        return {name: self.arguments[name] for name in (*_ACCESS, *_WHERE) if name in self.arguments}

    @property
    def folder(self) -> Path:
        """The folder of the files on this machine, of a local model."""
        return Path(self.location, str(self.arguments.get("subfolder") or ""))

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """What `config.json` says, where it is on this machine and is one; None for a GGUF file."""
        path = self.folder / "config.json" if self.is_local else self._cached_config()
        if self.gguf_file or path is None:
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return stored if isinstance(stored, dict) else None

    @property
    def key(self) -> str:
        """The same text for whatever gives the same weights in memory."""
        arguments = {
            name: value
            for name, value in self.arguments.items()
            if name not in (*_ACCESS, "dtype")
            and value is not None
            and value != _DEFAULTS.get(name)
            and not (name == "subfolder" and self.is_local)
        }
        location = os.path.realpath(self.folder / (self.gguf_file or "")) if self.is_local else self.location
        gguf_file = None if self.is_local else self.gguf_file
        own = (self.layers_path, self.chat_template, self.prefix_cache_bytes, self.packed_weights)
        return repr((location, gguf_file, self.dtype, *own, sorted(arguments.items())))

    @property
    def dtype(self) -> Any:
        """The type of the weights in memory, as far as that can be told before they are read."""
        asked = self.arguments.get("dtype")
        if asked not in (None, "auto"):
            return asked
        config = self.config or {}
        for part in (config, config.get("text_config") or {}):
            if stored := part.get("dtype") or part.get("torch_dtype"):
                return stored
        return None

    def _cached_config(self) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        name = "/".join(filter(None, [self.arguments.get("subfolder"), "config.json"]))
        where = {name: self.arguments.get(name) for name in ("cache_dir", "revision")}
        path = try_to_load_from_cache(self.location, name, **where)
        return Path(path) if isinstance(path, str) else None


def find_source(model: str, model_kwargs: Mapping[str, Any]) -> Source:
    """Return what a user means by a model and its arguments.

    Args:
        model: `"abacus"`, a folder, a GGUF file, a name on the hub, or one with a file: `"repo/name:file.gguf"`.
        model_kwargs: For `from_pretrained`, and those of langnorm: `layers_path`, `chat_template`,
            `prefix_cache_bytes`, `packed_weights`, `gguf_file`, `gguf_cache`.

    Raises:
        OptionError: An argument has a value that is not allowed.
        ModelError: There is no such file or folder, and it cannot be the name of a model on the hub.
    """
    arguments = dict(model_kwargs)
    own = {name: arguments.pop(name) for name in _OWN if name in arguments}
    gguf_file, gguf_cache = arguments.pop("gguf_file", None), arguments.pop("gguf_cache", True)
    try:
        location, named = _split(model)
    except OSError as error:  # a path that the system does not take, or that this user may not look at
        msg = f"The model `{model}` cannot be looked for ({error.strerror}). {_ALLOWED}"
        raise ModelError(msg) from error
    if gguf_file is not None and named is not None:
        msg = f"`{model}` names a GGUF file, and so does `gguf_file={gguf_file!r}`. Give one of them."
        raise OptionError(msg)
    gguf_file = named if gguf_file is None else gguf_file
    if gguf_file is not None and not isinstance(gguf_file, str | os.PathLike):
        refuse("gguf_file", gguf_file, "the name of a GGUF file in the folder or repository")
    if not isinstance(gguf_cache, bool | str | os.PathLike):
        refuse("gguf_cache", gguf_cache, "True, False, or a folder")
    return Source(
        name=model,
        location=location,
        gguf_file=None if gguf_file is None else os.fspath(gguf_file),
        arguments=_check_arguments(
            arguments, is_gguf=gguf_file is not None, is_packed=own.get("packed_weights") is not None
        ),
        gguf_cache=gguf_cache if isinstance(gguf_cache, bool) else os.fspath(gguf_cache),
        **own,
    )


def _split(model: str) -> tuple[str, str | None]:
    """Return the folder or the repository of a model, and the name of its GGUF file if it is one."""
    if model == BUNDLED_MODEL:
        return str(langnorm.abacus.path()), None
    path = Path(model)
    if path.is_dir():
        return model, None
    if path.is_file():
        if path.suffix.lower() == SUFFIX or _starts_with_magic(path):
            return str(path.parent), path.name
        msg = f"`{model}` is a file, and not a GGUF file. Give the folder that has it, with its config and tokenizer."
        raise ModelError(msg)
    location, colon, file = model.rpartition(":")
    if colon and file.lower().endswith(SUFFIX):
        if not Path(location).is_dir():
            _check_repository(location)
        return location, file
    if model.lower().endswith(SUFFIX):
        msg = f'There is no file `{model}`. Give the path of one, or name one on the hub: `"repo/name:file{SUFFIX}"`.'
        raise ModelError(msg)
    _check_repository(model)
    return model, None


def _starts_with_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _check_repository(name: str) -> None:
    """Refuse at once what is neither a folder nor a name of the hub, which may take a minute to find out."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if "/" not in name and (hint := closest(name, [BUNDLED_MODEL])):
        msg = f"There is no model `{name}`. {_ALLOWED}{hint}"
        raise ModelError(msg)
    try:
        validate_repo_id(name)
    except HFValidationError:
        home = " Write your home folder out in place of `~`." if name.startswith("~") else ""
        msg = f"There is no folder `{name}`, and no model on the hub has such a name. {_ALLOWED}{home}"
        raise ModelError(msg) from None


def _check_arguments(arguments: dict[str, Any], *, is_gguf: bool, is_packed: bool) -> dict[str, Any]:
    """Return the arguments of `from_pretrained`, each under one name and in one form."""
    if "device" in arguments:
        msg = '`model_kwargs` has no `device`. Use `device_map`, such as `model_kwargs={"device_map": "cuda"}`.'
        raise OptionError(msg)
    torch_dtype = arguments.pop("torch_dtype", None)  # its older name
    dtype = arguments.pop("dtype", None)
    dtype = torch_dtype if dtype is None else dtype
    if dtype in (None, "auto"):
        # Packed weights have kernels for one type only; float32 is what the blocks of a GGUF file unpack to exactly.
        dtype = "bfloat16" if is_packed else "float32" if is_gguf else dtype
    if dtype is not None:
        arguments["dtype"] = _dtype_name(dtype)
    # transformers would ask on standard input, and run code of others at a "y".
    if arguments.get("trust_remote_code") is None:
        arguments["trust_remote_code"] = False
    check_flag("trust_remote_code", arguments["trust_remote_code"], owner="model_kwargs")
    return arguments


def _dtype_name(dtype: Any) -> Any:
    """Return the one name of a dtype; a dict of them, for the parts of a model, as it is."""
    if isinstance(dtype, dict):
        return dtype
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        words = [word for word in _DTYPES if _DTYPES[word] == word]
        refuse("dtype", dtype, ", ".join(f'"{word}"' for word in words), "model_kwargs", closest(name, words))
    return _DTYPES[name]

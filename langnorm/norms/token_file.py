"""The file of a table of tokens, beside the JSON of a profile, which names its digest.

It has the form of safetensors, but not their name: in the folder of a model, what is named so may be taken for weights.

Which ids were seen is a bit for each id up to the last: an id takes 2 bytes per layer and 6 more, and 150,000 ids of 6
layers together less than 3 MB.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langnorm.errors import OptionError
from langnorm.files import write_atomically
from langnorm.norms.token_table import LEAST_SPREAD, TokenTable
from langnorm.stored import read_bytes

_NAME = "langnorm token table"
_FORM = {"format": f"{_NAME} 1"}  # one entry: of several, safetensors would change the order
_MOST_IDS = 2**24  # of a vocabulary; a file must not ask for all memory that there is
_MOST_LAYERS = 1_000
_MOST_TOKENS = 2**53  # float64, in which shares are reckoned, counts no further
_MOST_LOG = 1e4  # the logarithms of all float64 are below 746
_MEND = "Make the profile again with `langnorm calibrate` or `NormProfile.calibrate`, which writes both files."
_KINDS = {
    "layers": np.int64,
    "seen": np.uint8,
    "counts": np.uint32,
    "offsets": np.float16,
    "ratios": np.float16,
    "centres": np.float64,
    "spreads": np.float64,
}


def path_beside(path: Path) -> Path:
    """Return where the table of the profile at `path` lies."""
    return path.with_suffix(".tokens")


def digest_of(content: bytes) -> str:
    """Return what ties a table to the JSON of its profile."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def to_bytes(table: TokenTable) -> bytes:
    """Return what a file holds of a table: the same bytes for the same table."""
    from safetensors.numpy import save

    seen = np.zeros(int(table.ids[-1]) + 1 if len(table.ids) else 0, dtype=np.uint8)
    seen[table.ids] = 1
    arrays: dict[str, NDArray[Any]] = {
        "layers": np.array(table.layers, dtype=np.int64),
        "seen": np.packbits(seen, bitorder="little"),
        "counts": np.minimum(table.counts, 2**32 - 1).astype(np.uint32),
        "offsets": np.ascontiguousarray(table.offsets),
        "ratios": table.ratios,
        "centres": table.centres,
        "spreads": table.spreads,
    }
    return bytes(save(arrays, metadata=_FORM))


def from_bytes(content: bytes, source: str) -> TokenTable:
    """Return the table that a file holds.

    Args:
        content: Of the file.
        source: What it is from, for the error, such as its path in backquotes.

    Raises:
        OptionError: It holds something else; the message says what is wrong.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return _checked(load(content))
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        reason = str(error).rstrip(".") or type(error).__name__
        msg = f"{source} is not a table of tokens of this version of langnorm: {reason}. {_MEND}"
        raise OptionError(msg) from error


def _checked(arrays: dict[str, Any]) -> TokenTable:
    """Return the table of some arrays.

    Raises:
        ValueError: They are no table.
    """
    for name, kind in _KINDS.items():
        if name not in arrays or arrays[name].dtype != kind:
            msg = f"it has no `{name}` of the type {np.dtype(kind).name}"
            raise ValueError(msg)
    layers = arrays["layers"].tolist() if arrays["layers"].ndim == 1 else []
    if not 0 < len(layers) <= _MOST_LAYERS or layers != sorted(set(layers)) or layers[0] < 0:
        msg = "its layers must be indices from 0 up, ascending"
        raise ValueError(msg)
    if arrays["seen"].ndim != 1 or len(arrays["seen"]) > _MOST_IDS // 8:
        msg = f"it must have a bit for each id, up to {_MOST_IDS:,}"
        raise ValueError(msg)
    ids = np.flatnonzero(np.unpackbits(arrays["seen"], bitorder="little")).astype(np.int32)
    num_ids, num_layers = len(ids), len(layers)
    shapes = {
        "counts": (num_ids,),
        "offsets": (num_ids, num_layers),
        "ratios": (num_ids,),
        "centres": (num_layers,),
        "spreads": (num_layers,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            msg = f"its `{name}` must be finite numbers of the shape {shape}"
            raise ValueError(msg)
    counts = arrays["counts"].astype(np.int64)
    if not num_ids or (counts < 1).any() or int(counts.sum()) > _MOST_TOKENS:
        msg = "it must have ids, each seen once at least"
        raise ValueError(msg)
    if (arrays["ratios"] < 0).any() or (arrays["spreads"] < LEAST_SPREAD).any():
        msg = f"its ratios must not be below 0, nor its spreads below {LEAST_SPREAD}"
        raise ValueError(msg)
    if max(np.abs(arrays["centres"]).max(), arrays["spreads"].max()) > _MOST_LOG:
        msg = f"its centres and spreads must be those of logarithms of norms, up to {_MOST_LOG:g}"
        raise ValueError(msg)
    columns = {name: arrays[name] for name in ("offsets", "ratios", "centres", "spreads")}
    return TokenTable.of(layers, ids, counts, **columns)


def check_beside(path: Path) -> None:
    """Raise `OptionError` if a profile at `path` could not have its table beside it: another file has that name."""
    if _is_in_the_way(path):
        msg = (
            f"`{path_beside(Path(os.path.realpath(path)))}` is no table of tokens, and one would take its place. Give "
            "the profile another name or folder."
        )
        raise OptionError(msg)


def write_pair(path: Path, text: str, content: bytes | None) -> None:
    """Write a profile and its table, each whole or not at all, so that at no moment a profile lies without its own.

    The table of the profile that is there stays beside the new one until the new profile is in place, and `read_table`
    finds it: whoever is killed in between leaves what was.

    Args:
        path: Of the profile.
        text: Its JSON, which names the digest of the table.
        content: Of the file of the table; None for a profile without one.

    Raises:
        OptionError: The folder does not exist or cannot be written, or a file that is no table is in the way.
    """
    if content is not None:
        check_beside(path)
    elif _is_in_the_way(path):
        write_atomically(path, text)
        return
    beside = path_beside(Path(os.path.realpath(path)))
    earlier = _earlier(beside)
    try:
        if beside.exists() and (not earlier.exists() or _names(path, beside)):
            beside.replace(earlier)
        if content is not None:
            write_atomically(beside, content)
        write_atomically(path, text)
    except BaseException as error:
        if earlier.exists() and _names(path, earlier):
            earlier.replace(beside)
        elif content is not None and not _names(path, beside):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            msg = f"`{beside}` cannot be written ({error.strerror}). Give a path in a folder that exists and is yours."
            raise OptionError(msg) from error
        raise
    earlier.unlink(missing_ok=True)


def read_table(path: Path, digest: str) -> TokenTable:
    """Return the table of the profile at `path`, whose JSON names the digest.

    Raises:
        OptionError: There is none, it is that of another profile, or it is no table.
    """
    beside = path_beside(Path(os.path.realpath(path)))
    try:
        content = read_bytes(beside, _MEND)
    except OptionError:
        content = None
    if (content is None or digest_of(content) != digest) and _earlier(beside).is_file():
        content = read_bytes(_earlier(beside), _MEND)  # someone was killed while both were replaced
    if content is None:
        content = read_bytes(beside, f"It belongs to `{path}`: copy both. {_MEND}")
    if digest_of(content) != digest:
        msg = f"`{beside}` is not the table of tokens of `{path}`, but of another profile. Copy both files. {_MEND}"
        raise OptionError(msg)
    return from_bytes(content, f"`{beside}`")


def _is_in_the_way(path: Path) -> bool:
    """Return whether what is no table lies where that of the profile at `path` belongs; the profile itself may."""
    profile = Path(os.path.realpath(path))
    beside = path_beside(profile)
    return beside == profile or (beside.exists() and not is_table(beside))


def _earlier(beside: Path) -> Path:
    return beside.with_name(f".{beside.name}.earlier")


def _names(path: Path, table: Path) -> bool:
    """Return whether there is a profile that names a table."""
    return path.is_file() and table.is_file() and digest_of(table.read_bytes()).encode() in path.read_bytes()


def is_table(path: Path) -> bool:
    """Return whether a file is a table of this or another version of langnorm."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(2**16)
    return _NAME.encode() in start

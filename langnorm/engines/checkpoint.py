"""What weights a model has: the same answer however an engine lays them out or splits them over files."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUM_SAMPLED = 64  # values of each weight: a fine-tune moves them all, and a large model is read in a moment

# How safetensors names its types, and numpy reads them; bfloat16, which numpy lacks, is the upper half of a float32.
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_BFLOAT16 = "BF16"


def hash_checkpoint(folder: Path) -> str | None:
    """Return a hash of the weights in a folder, or None where it has no safetensors.

    It covers name, shape and some values of every weight: whole files, or the same weights split over several, give the
    same. Values are compared as float32, so a copy in a wider type gives the same too.
    """
    weights = [weight for path in _weight_files(folder) for weight in _read_weights(path)]
    return hash_weights(weights) if weights else None


def _weight_files(folder: Path) -> list[Path]:
    """Return the files of the weights: there may be the same ones in another form, or adapters."""
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in sorted(set(names))]
    if whole.is_file():
        return [whole]
    return sorted(folder.glob("*.safetensors"))


def hash_weights(weights: Iterable[tuple[str, tuple[int, ...], bytes]]) -> str:
    """Return a hash of weights, each as its name, its shape and the bytes of some of its values; in any order.

    Some checkpoints store a weight that two layers share once, others twice: of equal ones the last name counts.
    """
    names: dict[tuple[tuple[int, ...], bytes], str] = {}
    for name, shape, values in weights:
        names[shape, values] = max(name, names.get((shape, values), ""))
    by_name = sorted((name, shape, values) for (shape, values), name in names.items())
    return hash_bytes(*(part for name, shape, values in by_name for part in (f"{name}{shape}".encode(), values)))


def hash_bytes(*parts: bytes) -> str:
    """Return a short hash of some bytes, as 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def sample_values(flat: Any) -> Any:
    """Return some values of a weight, spread over all of it; of a one-dimensional array or tensor."""
    return flat[:: max(1, len(flat) // _NUM_SAMPLED)][:_NUM_SAMPLED]


def _read_weights(path: Path) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Return name, shape and sampled values of each weight in a file of safetensors."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    (header_size,) = struct.unpack("<Q", data[:8].tobytes())
    header = json.loads(data[8 : 8 + header_size].tobytes())
    start = 8 + header_size
    return [
        (name, tuple(entry["shape"]), _sampled_bytes(data[start + first : start + last], entry["dtype"]))
        for name, entry in header.items()
        if name != "__metadata__"
        for first, last in [entry["data_offsets"]]
    ]


def _sampled_bytes(data: NDArray[np.uint8], dtype: str) -> bytes:
    if dtype == _BFLOAT16:
        halves = sample_values(np.frombuffer(data, dtype="<u2"))
        widened: NDArray[np.uint32] = halves.astype("<u4") << 16
        return widened.tobytes()
    if dtype in _FLOATS:
        return bytes(sample_values(np.frombuffer(data, dtype=_FLOATS[dtype])).astype("<f4").tobytes())
    packed: NDArray[np.uint8] = sample_values(data)
    return packed.tobytes()  # of quantised weights the bytes are all there is to compare

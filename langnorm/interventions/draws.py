"""Random numbers of a row that depend on its request, its seed and the moment, and on nothing else."""

from __future__ import annotations

import hashlib


def draw(seed: int, sample: int, kind: str, step: int, layer: int) -> float:
    """Return a number in [0, 1) for one row, decode step and layer, the same one whatever else is drawn."""
    digest = hashlib.blake2b(f"{seed}/{sample}/{kind}/{step}/{layer}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64

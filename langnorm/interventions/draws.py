"""Random numbers of a row that depend on its request, its seed and the moment, and on nothing else."""

from __future__ import annotations

import hashlib
import struct

BLOCK = 64
"""Number of steps that are drawn at once."""


def draw(seed: int, sample: int, kind: str, step: int, layer: int) -> float:
    """Return a number in [0, 1) for one row, decode step and layer, the same one whatever else is drawn."""
    return draws(seed, sample, kind, step // BLOCK, layer)[step % BLOCK]


def draws(seed: int, sample: int, kind: str, block: int, layer: int) -> list[float]:
    """Return the numbers of a block of steps: one hash for many steps costs little more than one for a single step."""
    digest = hashlib.shake_128(f"{seed}/{sample}/{kind}/{block}/{layer}".encode()).digest(8 * BLOCK)
    return [(number >> 11) / 2**53 for number in struct.unpack(f"<{BLOCK}Q", digest)]  # never rounded up to 1

"""Random numbers that depend on a request's seed, its sample, the decode step and the layer, and on nothing else."""

from __future__ import annotations

import hashlib
import struct

_BLOCK = 64  # steps that are drawn at once: one hash for many costs little more than one for a single step


def draw_uniform(seed: int, sample: int, kind: str, step: int, layer: int) -> float:
    """Return a number in [0, 1) for one sequence, decode step and layer, the same one whatever else is drawn.

    Args:
        seed: Of the request.
        sample: Number of the sequence among the samples of its request.
        kind: What is drawn for, such as `"steering"`.
        step: Decode step, from 0.
        layer: 0-based index of the decoder layer.
    """
    return _draw_block(seed, sample, kind, step // _BLOCK, layer)[step % _BLOCK]


class UniformDraws:
    """The numbers of `draw_uniform` of one sequence at one layer, by decode step.

    Args:
        seed: Of the request.
        sample: Number of the sequence among the samples of its request.
        kind: What is drawn for.
        layer: 0-based index of the decoder layer.
    """

    def __init__(self, seed: int, sample: int, kind: str, layer: int) -> None:
        self._seed, self._sample, self._kind, self._layer = seed, sample, kind, layer
        self._block = -1
        self._numbers: tuple[float, ...] = ()

    def at(self, step: int) -> float:
        """Return the number in [0, 1) of a decode step."""
        block = step // _BLOCK
        if block != self._block:
            self._block = block
            self._numbers = _draw_block(self._seed, self._sample, self._kind, block, self._layer)
        return self._numbers[step % _BLOCK]


def _draw_block(seed: int, sample: int, kind: str, block: int, layer: int) -> tuple[float, ...]:
    digest = hashlib.shake_128(f"{seed}/{sample}/{kind}/{block}/{layer}".encode()).digest(8 * _BLOCK)
    return tuple((number >> 11) / 2**53 for number in struct.unpack(f"<{_BLOCK}Q", digest))  # never rounded up to 1

"""Keys and values of consecutive tokens of one sequence, taken from a cache of a batch and put into another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Keys and values of T consecutive tokens. They say nothing of where the sequence stands in a padded batch.

    Attributes:
        layers: Of each decoder layer, keys (heads, T, d) and values (heads, T, d').
    """

    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of_row(cls, cache: Any, row: int, start: int, end: int) -> KeyValues:
        """Return those of some positions of a sequence in a batch, as views into its cache."""
        return cls(tuple((layer.keys[row, :, start:end], layer.values[row, :, start:end]) for layer in cache.layers))

    @property
    def num_tokens(self) -> int:
        """Number of tokens T."""
        return self.layers[0][0].size(-2)

    @property
    def num_bytes(self) -> int:
        """Memory that they take, in bytes."""
        return sum(tensor.numel() * tensor.element_size() for layer in self.layers for tensor in layer)

    def narrow(self, start: int, end: int) -> KeyValues:
        """Return those of tokens `start` to `end`, as views."""
        return KeyValues(tuple((keys[:, start:end], values[:, start:end]) for keys, values in self.layers))

    def copy(self) -> KeyValues:
        """Return the same in memory of its own, so that what these are views into can be freed."""
        return KeyValues(tuple((_copy(keys), _copy(values)) for keys, values in self.layers))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True, slots=True)
class Row:
    """A sequence in a padded batch.

    Attributes:
        offset: Number of positions of padding before it.
        parts: What is known of it, from its first token on.
    """

    offset: int
    parts: Sequence[KeyValues]


def fill_cache(cache: DynamicCache, rows: Sequence[Row], width: int, row_of: Sequence[int]) -> DynamicCache:
    """Return an empty cache, filled with the first positions of a padded batch.

    Args:
        cache: The cache; all its layers keep everything.
        rows: Each sequence once; at least one of them is known in part.
        width: Number of positions.
        row_of: Which of the rows each of the B sequences of the batch is.
    """
    some = next(part for row in rows for part in row.parts)
    index = list(row_of)
    layers: list[Any] = cache.layers
    for number, layer in enumerate(layers):
        tensors = []
        for which in (0, 1):
            of_rows = _padded(some.layers[number][which], rows, width, number, which)
            if len(rows) == 1:
                of_rows = of_rows.expand(len(index), -1, -1, -1)
            elif index != list(range(len(rows))):
                of_rows = of_rows[torch.tensor(index, device=of_rows.device)]
            tensors.append(of_rows)
        keys, values = tensors
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
    return cache


def _padded(some: Tensor, rows: Sequence[Row], width: int, layer: int, which: int) -> Tensor:
    """Return the keys (0) or values (1) of a layer, (R, heads, width, d)."""
    if len(rows) == 1 and len(rows[0].parts) == 1 and not rows[0].offset and rows[0].parts[0].num_tokens == width:
        return rows[0].parts[0].layers[layer][which][None]
    padded = some.new_zeros(len(rows), some.size(0), width, some.size(-1))
    for number, row in enumerate(rows):
        start = row.offset
        for part in row.parts:
            end = min(start + part.num_tokens, width)
            if start < end:
                padded[number, :, start:end] = part.layers[layer][which][:, : end - start]
            start = end
    return padded

"""The distribution of the norms of each layer: small, mergeable, and updated where the norms are."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from copy import copy as shallow_copy
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from langnorm.checks import brief
from langnorm.errors import OptionError
from langnorm.norms.curve import ACCURACY, LOG_GAMMA, LOWEST, NUM_BUCKETS, Curve
from langnorm.norms.stored_sketch import MOST_NORMS, SKETCH, VERSION, StoredSketch, runs_of

_MOST_RESULTS = 32  # answers that a sketch remembers

_T = TypeVar("_T")


class QuantileSketch:
    """The distribution of `n_t^l` for each of some decoder layers.

    Bucket 0 counts norms up to `LOWEST`, bucket i those in `(LOWEST * gamma^(i-1), LOWEST * gamma^i]` with
    `gamma = 1 + ACCURACY`, and the last one those above. Minimum and maximum are exact. What is no norm, such as NaN
    and the infinity of a number that overflowed, is never counted. Norms are taken as float64, which the device must
    have.

    Args:
        layers: 0-based indices of the decoder layers, ascending.
        device: Where the counts are kept.

    Raises:
        OptionError: `layers` is not ascending, or has a negative index.
    """

    def __init__(self, layers: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.layers = _checked(layers)
        self.device = torch.device(device)
        num_layers = len(self.layers)
        self._counts = torch.zeros(num_layers, NUM_BUCKETS, dtype=torch.int64, device=device)  # (L, buckets)
        self._minimum = torch.full((num_layers,), math.inf, dtype=torch.float64, device=device)  # (L,)
        self._maximum = torch.full((num_layers,), -math.inf, dtype=torch.float64, device=device)  # (L,)
        self._results: dict[Any, Any] = {}  # what follows from the counts, until they change
        self._is_shared = False  # whether copies may have the same tensors

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_results": {}}

    @property
    def count(self) -> NDArray[np.int64]:
        """Number of norms of each layer (L,)."""
        return np.array([curve.count for curve in self._curves], dtype=np.int64)

    @property
    def _curves(self) -> list[Curve]:
        """What the counts of each layer say."""
        return self._remembered("curves", self._read)

    def _read(self) -> list[Curve]:
        columns = (self._counts.cpu().numpy(), self._minimum.tolist(), self._maximum.tolist())
        return [Curve.of(*column) for column in zip(*columns, strict=True)]

    def _remembered(self, key: Any, compute: Callable[[], _T]) -> _T:
        results = self._results  # who updates the sketch meanwhile begins another
        result: _T | None = results.get(key)
        if result is None:
            result = compute()
            if len(results) < _MOST_RESULTS:
                results[key] = result
        return result

    @property
    def num_samples(self) -> int:
        """Number of norms of the layer with the fewest; 0 without layers."""
        return int(self.count.min()) if self.layers else 0

    def update(self, norms: Tensor, mask: Tensor | None = None, layers: Sequence[int] | None = None) -> None:
        """Add norms. Nothing waits for the device. Who reads or copies the sketch in other threads takes a lock.

        Args:
            norms: A last axis of layers (..., L').
            mask: Which of them to add (...), bool; by default all.
            layers: The L' layers of the last axis; by default those of the sketch.

        Raises:
            OptionError: A layer is not one of the sketch, or there is not one column per layer.
        """
        rows = self._rows(self.layers if layers is None else layers)
        if norms.size(-1) != len(rows):
            msg = f"Norms of shape `{tuple(norms.shape)}` do not fit `{len(rows)}` layers. Give one column per layer."
            raise OptionError(msg)
        if not norms.numel():
            return
        self._change()
        values = norms.detach().to(self.device, torch.float64)
        is_counted = values.isfinite() & (values >= 0)
        if mask is not None:
            is_counted &= mask.to(self.device)[..., None]
        # Views of a tensor made on the device: indices from a list would be copied there, and waited for.
        numbers = torch.arange(len(self.layers), device=self.device)
        places = torch.stack([numbers[row] for row in rows])  # (L',)
        flat = places * NUM_BUCKETS + _buckets(values)  # (..., L')
        self._counts.view(-1).scatter_add_(0, flat.flatten(), is_counted.flatten().long())
        least = values.masked_fill(~is_counted, math.inf).reshape(-1, len(rows)).amin(dim=0)
        most = values.masked_fill(~is_counted, -math.inf).reshape(-1, len(rows)).amax(dim=0)
        self._minimum.scatter_reduce_(0, places, least, "amin")
        self._maximum.scatter_reduce_(0, places, most, "amax")
        self._results = {}

    def quantile(self, q: float) -> NDArray[np.float64]:
        """Return the norm below which a share `q` of the norms of each layer is: the inverse of `percentile`.

        The least and the greatest norm are exact, others at most `ACCURACY` off the norm at rank `ceil(q * n)` of the n
        sorted ones. Norms outside `LOWEST` to `HIGHEST` are known by their side only.

        Args:
            q: Between 0 and 1.

        Returns:
            One value per layer (L,); NaN for a layer without norms.

        Raises:
            OptionError: `q` is outside 0 to 1.
        """
        if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= 1:
            msg = f"`q={brief(q)}` is not allowed. Use a number between 0 and 1."
            raise OptionError(msg)
        return self._remembered(q, lambda: np.array([curve.quantile(q) for curve in self._curves])).copy()

    def percentile(self, norms: ArrayLike | Tensor) -> NDArray[np.float64]:
        """Return which share of a layer's norms is below the given ones.

        Within a bucket it rises linearly with the logarithm of the norm, from the least norm to the greatest one. Where
        these are the same, it is the middle of their ranks.

        Args:
            norms: A last axis of the sketch's layers (..., L).

        Returns:
            Shares (..., L) from 0 to 1; NaN for NaN and for a layer without norms.

        Raises:
            OptionError: There is not one column per layer.
        """
        if isinstance(norms, Tensor):
            norms = norms.detach().cpu().double()  # numpy has no bfloat16
        values = np.asarray(norms, dtype=np.float64)
        if values.shape[-1:] != (len(self.layers),):
            msg = (
                f"Norms of shape `{values.shape}` do not fit `{len(self.layers)}` layers. "
                "Give one column per layer, or use `select` first."
            )
            raise OptionError(msg)
        shares = np.empty_like(values)
        for layer, curve in enumerate(self._curves):
            shares[..., layer] = curve.share_below(values[..., layer])
        return shares

    def merge(self, other: QuantileSketch) -> None:
        """Add all norms of another sketch of the same layers.

        Raises:
            OptionError: Its layers are others.
        """
        if other.layers != self.layers:
            here = sorted(set(self.layers) - set(other.layers))
            there = sorted(set(other.layers) - set(self.layers))
            msg = (
                f"Distributions of different layers cannot be merged: only here `{here}`, only there `{there}`. "
                "Use `select` to reduce both to the same layers."
            )
            raise OptionError(msg)
        if max((self.count + other.count).tolist(), default=0) > MOST_NORMS:
            msg = f"Distributions of together more than {MOST_NORMS} norms cannot be merged. Leave one of them out."
            raise OptionError(msg)
        self._change()
        self._counts += other._counts.to(self.device)
        self._minimum.copy_(self._minimum.minimum(other._minimum.to(self.device)))
        self._maximum.copy_(self._maximum.maximum(other._maximum.to(self.device)))
        self._results = {}

    def copy(self) -> QuantileSketch:
        """Return a copy that further updates of this one do not change."""
        twin = shallow_copy(self)
        twin._results = self._results
        self._is_shared = twin._is_shared = True  # both have the same tensors, until one of them changes
        return twin

    def to(self, device: torch.device | str) -> QuantileSketch:
        """Return a copy on a device."""
        if torch.device(device) == self.device:
            return self.copy()
        moved = QuantileSketch(self.layers, device)
        moved._counts.copy_(self._counts)
        moved._minimum.copy_(self._minimum)
        moved._maximum.copy_(self._maximum)
        return moved

    def _change(self) -> None:
        """Forget what followed from the counts, and leave the tensors to the copies that share them."""
        self._results = {}  # copies keep the one they share
        if self._is_shared or self._counts.is_inference():
            columns = (self._counts, self._minimum, self._maximum)
            with torch.inference_mode(mode=False):  # what is made inside could not be updated outside
                self._counts, self._minimum, self._maximum = (column.clone() for column in columns)
            self._is_shared = False

    def select(self, layers: Sequence[int]) -> QuantileSketch:
        """Return a copy with only some of the layers, given in ascending order.

        Raises:
            OptionError: A layer is not one of the sketch, or they are not ascending.
        """
        return self._remembered(("select", tuple(layers)), lambda: self._select(layers)).copy()

    def _select(self, layers: Sequence[int]) -> QuantileSketch:
        rows = self._rows(layers)
        columns = (self._counts, self._minimum, self._maximum)
        selected = QuantileSketch(layers, self.device)
        selected._counts, selected._minimum, selected._maximum = (column[rows] for column in columns)
        return selected

    def to_dict(self) -> dict[str, Any]:
        """Return a small JSON form: per layer the extremes, and counts in runs `[first bucket, count, count, ...]`."""
        rows = zip(self._counts.cpu().numpy(), self._minimum.tolist(), self._maximum.tolist(), strict=True)
        layers = {
            str(layer): {"min": _finite(minimum), "max": _finite(maximum), "runs": runs_of(counts)}
            for layer, (counts, minimum, maximum) in zip(self.layers, rows, strict=True)
        }
        return {"version": VERSION, "accuracy": ACCURACY, "layers": layers}

    @classmethod
    def from_dict(cls, stored: Any) -> QuantileSketch:
        """Return the sketch whose `to_dict` is `stored`, on the CPU.

        Raises:
            OptionError: It is not the form of a sketch of this version; the message says what is wrong where.
        """
        return cls.from_stored(SKETCH.check(stored, "This"))

    @classmethod
    def from_stored(cls, stored: StoredSketch) -> QuantileSketch:
        """Return the sketch whose JSON form has been read."""
        sketch = cls(stored.indices)
        for row, layer in enumerate(stored.layers.values()):
            if layer.min is not None and layer.max is not None:
                sketch._counts[row] = torch.from_numpy(layer.counts())
                sketch._minimum[row], sketch._maximum[row] = layer.min, layer.max
        return sketch

    def _rows(self, layers: Sequence[int]) -> list[int]:
        missing = [layer for layer in layers if layer not in self.layers]
        if missing:
            msg = f"Layers `{missing}` are not in this distribution. Use some of `{list(self.layers)}`."
            raise OptionError(msg)
        return [self.layers.index(layer) for layer in layers]


def _checked(layers: Sequence[int]) -> tuple[int, ...]:
    indices = tuple(operator.index(layer) for layer in layers)
    if list(indices) != sorted(set(indices)) or any(index < 0 for index in indices):
        msg = f"`layers={list(indices)}` is not allowed. Use indices from 0 up, ascending, each once."
        raise OptionError(msg)
    return indices


def _buckets(norms: Tensor) -> Tensor:
    """Return the bucket of each float64 norm, int64 of the same shape; that of NaN means nothing."""
    place = (norms.log() - math.log(LOWEST)) / LOG_GAMMA
    # A logarithm and not a search among the edges: ten times as fast.
    return place.ceil().nan_to_num(nan=0).clamp(0, NUM_BUCKETS - 1).long()


def _finite(value: float) -> float | None:
    """Return an extreme, or None where there is none."""
    return value if math.isfinite(value) else None

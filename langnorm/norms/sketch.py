"""The distribution of the norms of each layer: small, mergeable, and updated where the norms are.

A histogram with buckets of equal width in log space, after DDSketch (Masson, Rim and Lee 2019, arXiv 1908.10693).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby
from typing import Any, TypeVar

import torch
from torch import Tensor

from langnorm.errors import OptionError

ACCURACY = 0.01
"""Largest relative error of a quantile between `LOWEST` and `HIGHEST`."""

LOWEST, HIGHEST = 1e-6, 1e9
"""Norms up to the first and above the second share one bucket each."""

_VERSION = 1
_LOG_GAMMA = math.log((1 + ACCURACY) / (1 - ACCURACY))
_NUM_INNER = math.ceil(math.log(HIGHEST / LOWEST) / _LOG_GAMMA)
_NUM_BUCKETS = _NUM_INNER + 2
_FINITE = torch.finfo(torch.float64)
_MOST_KNOWN = 32  # answers that a sketch remembers
_QUARTILES = (0.25, 0.5, 0.75)

_T = TypeVar("_T")


class QuantileSketch:
    """The distribution of `n_t^l` for each of some decoder layers.

    Bucket 0 counts norms up to `LOWEST`, bucket i those in `(LOWEST * gamma^(i-1), LOWEST * gamma^i]` with
    `gamma = (1 + ACCURACY) / (1 - ACCURACY)`, and the last one those above. Minimum and maximum are exact.
    Norms are taken as float64, which the device must have.

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
        self._counts = torch.zeros(num_layers, _NUM_BUCKETS, dtype=torch.int64, device=device)  # (L, buckets)
        self._minimum = torch.full((num_layers,), math.inf, dtype=torch.float64, device=device)  # (L,)
        self._maximum = torch.full((num_layers,), -math.inf, dtype=torch.float64, device=device)  # (L,)
        self._known: dict[Any, Any] = {}  # what follows from the counts, until they change

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": {}}

    @property
    def count(self) -> Tensor:
        """Number of norms of each layer (L,), int64."""
        return self._cumulative[:, -1].clone()

    @property
    def _cumulative(self) -> Tensor:
        """Number of norms up to the upper edge of each bucket (L, buckets)."""
        return self._remembered("cumulative", lambda: self._counts.cumsum(dim=-1))

    def _remembered(self, key: Any, compute: Callable[[], _T]) -> _T:
        known = self._known  # who updates the sketch meanwhile begins another
        found: _T | None = known.get(key)
        if found is None:
            found = compute()
            if len(known) < _MOST_KNOWN:
                known[key] = found
        return found

    @property
    def num_samples(self) -> int:
        """Number of norms of the layer with the fewest; 0 without layers."""
        return int(self.count.min()) if self.layers else 0

    def update(self, norms: Tensor, mask: Tensor | None = None, layers: Sequence[int] | None = None) -> None:
        """Add norms. Nothing waits for the device. Who reads the sketch in another thread at the time takes a lock.

        Args:
            norms: A last axis of layers (..., L'). NaN is never counted.
            mask: Which of them to add (...), bool; by default all.
            layers: The L' layers of the last axis; by default those of the sketch.

        Raises:
            OptionError: A layer is none of the sketch, or there is not one column per layer.
        """
        rows = self._rows(self.layers if layers is None else layers)
        if norms.size(-1) != len(rows):
            msg = f"Norms of shape `{tuple(norms.shape)}` do not fit `{len(rows)}` layers. Give one column per layer."
            raise OptionError(msg)
        if not norms.numel():
            return
        self._known = {}  # copies keep the one they share
        values = norms.detach().to(self.device, torch.float64)
        is_counted = ~values.isnan()
        if mask is not None:
            is_counted &= mask.to(self.device)[..., None]
        # Views of a tensor made on the device: indices from a list would be copied there, and waited for.
        numbers = torch.arange(len(self.layers), device=self.device)
        places = torch.stack([numbers[row] for row in rows])  # (L',)
        flat = places * _NUM_BUCKETS + _buckets(values)  # (..., L')
        self._counts.view(-1).scatter_add_(0, flat.flatten(), is_counted.flatten().long())
        least = values.masked_fill(~is_counted, math.inf).reshape(-1, len(rows)).amin(dim=0)
        most = values.masked_fill(~is_counted, -math.inf).reshape(-1, len(rows)).amax(dim=0)
        self._minimum.scatter_reduce_(0, places, least, "amin")
        self._maximum.scatter_reduce_(0, places, most, "amax")
        self._known = {}

    def quantile(self, q: float) -> Tensor:
        """Return the norm at rank `floor(q * (n - 1))` of the n sorted norms of each layer.

        The least and the greatest norm are exact, others off by at most `ACCURACY` of their value. Those outside
        `LOWEST` to `HIGHEST` are known by their side only.

        Args:
            q: Between 0 and 1.

        Returns:
            One value per layer (L,), float64; NaN for a layer without norms.

        Raises:
            OptionError: `q` is outside 0 to 1.
        """
        if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= 1:
            msg = f"`q={q!r}` is not allowed. Use a number between 0 and 1."
            raise OptionError(msg)
        shares = _QUARTILES if q in _QUARTILES else (q,)  # who asks for one quartile mostly asks for all
        quantiles = self._remembered(("quantiles", shares), lambda: self._quantiles(shares))
        return quantiles[shares.index(q)].clone()

    def _quantiles(self, shares: Sequence[float]) -> Tensor:
        """Return the quantiles (shares, L)."""
        last = self.count - 1  # (L,)
        q = torch.tensor(shares, dtype=torch.float64, device=self.device)
        rank = (q[:, None] * last).floor()  # (shares, L)
        is_before = self._cumulative <= rank[..., None]  # (shares, L, buckets)
        bucket = is_before.sum(dim=-1).clamp(max=_NUM_BUCKETS - 1)
        edges = _log_edges(self.device)
        low = edges[bucket].exp().maximum(self._minimum)
        high = edges[bucket + 1].exp().minimum(self._maximum)
        # The harmonic mean has the same relative error at either end of the bucket.
        value = (2 / (1 / low + 1 / high)).clamp(self._minimum, self._maximum)
        value = torch.where(rank == last, self._maximum, torch.where(rank == 0, self._minimum, value))
        return value.masked_fill(last < 0, math.nan)

    def percentile(self, norms: Tensor) -> Tensor:
        """Return which share of a layer's norms is below the given ones.

        Within a bucket it rises linearly with the logarithm of the norm, from the least norm to the greatest one. Where
        these are the same, it is the middle of their ranks.

        Args:
            norms: A last axis of the sketch's layers (..., L).

        Returns:
            Shares (..., L) from 0 to 1, float64, on the sketch's device; NaN for NaN and for a layer without norms.

        Raises:
            OptionError: There is not one column per layer.
        """
        if norms.size(-1) != len(self.layers):
            msg = (
                f"Norms of shape `{tuple(norms.shape)}` do not fit `{len(self.layers)}` layers. "
                "Give one column per layer, or use `select` first."
            )
            raise OptionError(msg)
        values = norms.detach().to(self.device, torch.float64)
        bucket = _buckets(values)  # (..., L)
        edges = _log_edges(self.device)
        low = edges[bucket].maximum(_finite_log(self._minimum))
        high = edges[bucket + 1].minimum(_finite_log(self._maximum))
        place = torch.where(high > low, ((_finite_log(values) - low) / (high - low)).clamp(0, 1), 0.5)
        rows = torch.arange(len(self.layers), device=self.device)
        counts = self._counts[rows, bucket]
        below = self._cumulative[rows, bucket] - counts
        share = (below + place * counts) / self.count
        share = share.masked_fill(values < self._minimum, 0).masked_fill(values > self._maximum, 1)
        return share.masked_fill(values.isnan() | (self.count == 0), math.nan)

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
        self._known = {}
        self._counts += other._counts.to(self.device)
        self._minimum = self._minimum.minimum(other._minimum.to(self.device))
        self._maximum = self._maximum.maximum(other._maximum.to(self.device))
        self._known = {}

    def copy(self) -> QuantileSketch:
        """Return a copy that further updates of this one do not change."""
        return self.to(self.device)

    def to(self, device: torch.device | str) -> QuantileSketch:
        """Return a copy on a device."""
        moved = QuantileSketch(self.layers, device)
        moved._counts.copy_(self._counts)
        moved._minimum.copy_(self._minimum)
        moved._maximum.copy_(self._maximum)
        if moved.device == self.device:
            moved._known = self._known  # until one of the two changes, and begins anew
        return moved

    def select(self, layers: Sequence[int]) -> QuantileSketch:
        """Return a copy with only some of the layers, given in ascending order.

        Raises:
            OptionError: A layer is none of the sketch, or they are not ascending.
        """
        return self._remembered(("select", tuple(layers)), lambda: self._select(layers)).copy()

    def _select(self, layers: Sequence[int]) -> QuantileSketch:
        rows = self._rows(layers)
        selected = QuantileSketch(layers, self.device)
        selected._counts.copy_(self._counts[rows])
        selected._minimum.copy_(self._minimum[rows])
        selected._maximum.copy_(self._maximum[rows])
        return selected

    def to_dict(self) -> dict[str, Any]:
        """Return a small JSON form: per layer the minimum, the maximum, and runs `[first bucket, count, count, ...]`.

        JSON has no infinity: where it is the minimum or the maximum, it is a text.
        """
        rows = zip(self._counts.tolist(), self._minimum.tolist(), self._maximum.tolist(), strict=True)
        layers = {
            str(layer): {"min": _json_number(minimum), "max": _json_number(maximum), "runs": _runs(counts)}
            for layer, (counts, minimum, maximum) in zip(self.layers, rows, strict=True)
        }
        return {"version": _VERSION, "accuracy": ACCURACY, "layers": layers}

    @classmethod
    def from_dict(cls, stored: Any) -> QuantileSketch:
        """Return the sketch whose `to_dict` is `stored`, on the CPU.

        Raises:
            OptionError: It has another version or accuracy, or is not the form of a sketch.
        """
        if not isinstance(stored, dict):
            msg = f"A stored distribution is a dict, not `{type(stored).__name__}`. Use what `to_dict` returned."
            raise OptionError(msg)
        for name, expected in (("version", _VERSION), ("accuracy", ACCURACY)):
            if stored.get(name) != expected:
                msg = f"`{name}={stored.get(name)!r}` of a stored distribution is not allowed. Use one of `{expected}`."
                raise OptionError(msg)
        try:
            sketch = cls([int(layer) for layer in stored["layers"]])
            for row, entry in enumerate(stored["layers"].values()):
                counts, minimum, maximum = _from_runs(entry["runs"]), float(entry["min"]), float(entry["max"])
                is_in_order = minimum <= maximum if any(counts) else (minimum, maximum) == (math.inf, -math.inf)
                if not is_in_order:
                    raise ValueError((minimum, maximum))  # noqa: TRY301
                sketch._counts[row] = torch.tensor(counts)
                sketch._minimum[row], sketch._maximum[row] = minimum, maximum
        except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            msg = f"The stored distribution is damaged (`{error!r}`). Use what `to_dict` returned."
            raise OptionError(msg) from error
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


@cache
def _log_edges(device: torch.device) -> Tensor:
    """Return the logarithm of the edges of all buckets (buckets + 1,); bucket i is above i, up to i + 1."""
    edges = torch.arange(-1, _NUM_INNER + 2, dtype=torch.float64, device=device) * _LOG_GAMMA
    edges += math.log(LOWEST)
    edges[0], edges[-1] = -math.inf, math.inf
    return edges


def _buckets(norms: Tensor) -> Tensor:
    """Return the bucket of each float64 norm, int64 of the same shape; that of NaN means nothing."""
    place = (norms.log() - math.log(LOWEST)) / _LOG_GAMMA
    # A logarithm and not a search among the edges: ten times as fast.
    return place.ceil().nan_to_num(nan=0).clamp(0, _NUM_BUCKETS - 1).long()


def _finite_log(norms: Tensor) -> Tensor:
    """Return the logarithm, finite for 0 and infinity too: distances between their logarithms must not be NaN."""
    return norms.clamp(_FINITE.tiny, _FINITE.max).log()


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _runs(counts: list[int]) -> list[list[int]]:
    """Return the runs of counts above 0, each with the index of its first one in front."""
    groups = [list(group) for _, group in groupby(enumerate(counts), key=lambda entry: entry[1] > 0)]
    return [[group[0][0], *(count for _, count in group)] for group in groups if group[0][1] > 0]


def _from_runs(runs: list[list[int]]) -> list[int]:
    """Return the counts whose `_runs` are given, one per bucket."""
    counts = [0] * _NUM_BUCKETS
    end = 0
    for first, *run in runs:
        are_integers = all(type(number) is int for number in (first, *run))
        if not run or not are_integers or min(run) < 1 or not end <= first <= _NUM_BUCKETS - len(run):
            raise ValueError(runs)
        end = first + len(run)
        counts[first:end] = run
    return counts

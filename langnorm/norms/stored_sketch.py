"""The JSON form of a distribution of norms: `{"version": .., "layers": {"9": {"min": .., "max": .., "runs": ..}}}`.

Counts are kept in runs, `[first bucket, count, count, ...]`: most buckets are empty.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from langnorm.norms.curve import ACCURACY, NUM_BUCKETS
from langnorm.stored import Stored, StoredForm

VERSION: Literal[2] = 2

MOST_NORMS = 2**53
"""Most norms that a layer may have counted: float64, in which shares are reckoned, counts no further."""

MOST_LAYERS = 1_000
"""Most layers of a distribution; a file must not ask for all memory that there is."""

_Run = Annotated[list[Annotated[int, Field(ge=0, le=MOST_NORMS)]], Field(min_length=2, max_length=NUM_BUCKETS + 1)]
_Norm = Annotated[float, Field(ge=0)]
_Index = Annotated[str, Field(min_length=1, max_length=6)]


class StoredLayer(Stored):
    """The norms of one layer.

    Attributes:
        min: The least norm; None without norms.
        max: The greatest norm; None without norms.
        runs: The counts that are not 0, in runs.
    """

    min: _Norm | None
    max: _Norm | None
    runs: list[_Run]

    @model_validator(mode="after")
    def _fits(self) -> StoredLayer:
        end = 0
        for first, *run in self.runs:
            if not end <= first <= NUM_BUCKETS - len(run):
                msg = f"its runs must ascend and end before bucket {NUM_BUCKETS}, and one begins at {first}"
                raise ValueError(msg)
            if 0 in run:
                msg = "a run has a count of 0"
                raise ValueError(msg)
            end = first + len(run)
        if sum(sum(run[1:]) for run in self.runs) > MOST_NORMS:
            msg = f"it counts more than {MOST_NORMS} norms"
            raise ValueError(msg)
        has_extremes = self.min is not None and self.max is not None and self.min <= self.max
        if has_extremes != bool(self.runs) or (not self.runs and not self.min is self.max is None):
            msg = f"a minimum of {self.min} and a maximum of {self.max} do not fit its counts"
            raise ValueError(msg)
        return self

    def counts(self) -> NDArray[np.int64]:
        """Return the counts of all buckets (buckets,)."""
        counts = np.zeros(NUM_BUCKETS, dtype=np.int64)
        for first, *run in self.runs:
            counts[first : first + len(run)] = run
        return counts


class StoredSketch(Stored):
    """The norms of some layers.

    Attributes:
        version: Of the form.
        accuracy: `ACCURACY`.
        layers: By index, ascending.
    """

    version: Literal[2]
    accuracy: Annotated[float, Field(ge=ACCURACY, le=ACCURACY)]
    layers: Annotated[dict[_Index, StoredLayer], Field(max_length=MOST_LAYERS)]

    @model_validator(mode="after")
    def _is_ascending(self) -> StoredSketch:
        if not all(name.isascii() and name.isdigit() and str(int(name)) == name for name in self.layers):
            msg = "its layers must be indices from 0 up"
            raise ValueError(msg)
        indices = self.indices
        if list(indices) != sorted(indices):
            msg = "its layers must ascend"
            raise ValueError(msg)
        return self

    @property
    def indices(self) -> tuple[int, ...]:
        """The layers, as 0-based indices, ascending."""
        return tuple(map(int, self.layers))


SKETCH = StoredForm(
    StoredSketch, "a stored distribution of this version of langnorm", "Use what `QuantileSketch.to_dict` returned."
)


def runs_of(counts: NDArray[np.int64]) -> list[list[int]]:
    """Return the runs of counts above 0, each with the index of its first one in front."""
    filled = counts.nonzero()[0]
    if not len(filled):
        return []
    starts = np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1)
    return [[int(run[0]), *counts[run].tolist()] for run in starts]

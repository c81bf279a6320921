"""How high the norms of steps are among those of other steps: by that, and not by its intensity alone, a step is low.

The intensity of a step is a mean over many tokens, so those of all steps lie close together: on real models hardly a
step has one below 0.2. What is low for a step is said by its rank among the steps of the same model.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from langnorm.stored import Stored

IntensityKind = Literal["layer", "token"]
"""What the option `intensity` takes: a token's norms are compared with those of all tokens of the layer, or with those
of the same token id."""

MOST_STEPS = 1024
"""Most steps of a sample; a share of 0.1 is then known to within 0.01."""

FEWEST_STEPS = 50
"""Steps below which nothing is said of ranks."""

_UNIT = 1000  # a share is kept in thousandths

_Share = Annotated[int, Field(ge=0, le=_UNIT)]


def rank_among(intensity: float, others: Sequence[float]) -> float:
    """Return the share of steps whose intensity is lower, the step itself counted in, and half of those as high.

    Args:
        intensity: Of the step.
        others: Intensities of other steps, ascending.

    Returns:
        A number above 0 and below 1.
    """
    num_lower, num_not_higher = bisect_left(others, intensity), bisect_right(others, intensity)
    return ((num_lower + num_not_higher) / 2 + 0.5) / (len(others) + 1)


class StepSample:
    """How high the norms of each layer were in some steps of a model.

    Args:
        layers: 0-based indices of the decoder layers, ascending.
        shares: Mean over the tokens of each of S steps, for each layer, of how high their norms were (S, L), 0 to 1; at
            most `MOST_STEPS` are kept, evenly spaced.
    """

    def __init__(self, layers: Sequence[int], shares: NDArray[np.float64]) -> None:
        self.layers = tuple(layers)
        thinned = shares[evenly(len(shares))].reshape(-1, len(self.layers))
        self._thousandths: NDArray[np.int16] = np.rint(thinned * _UNIT).astype(np.int16)
        self._sorted: dict[tuple[int, ...], tuple[float, ...]] = {}  # by layers: every call asks for those of its own

    def __len__(self) -> int:
        return len(self._thousandths)

    def intensities(self, layers: Sequence[int]) -> tuple[float, ...] | None:
        """Return the intensities of the steps in some layers, ascending; None where a layer or enough steps lack."""
        if len(self) < FEWEST_STEPS or not set(layers) <= set(self.layers):
            return None
        key = tuple(layers)
        if key not in self._sorted:
            columns = [self.layers.index(layer) for layer in key]
            self._sorted[key] = tuple(np.sort(self._thousandths[:, columns].mean(axis=1) / _UNIT).tolist())
        return self._sorted[key]

    def merged_with(self, other: StepSample) -> StepSample:
        """Return a sample of the steps of both, in the layers that both have."""
        layers = sorted({*self.layers} & {*other.layers})
        parts = [each._thousandths[:, [each.layers.index(layer) for layer in layers]] for each in (self, other)]
        return StepSample(layers, np.concatenate(parts) / _UNIT)

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON form."""
        return {"layers": list(self.layers), "thousandths": self._thousandths.tolist()}

    @classmethod
    def from_stored(cls, stored: StoredSteps) -> StepSample:
        """Return the sample whose JSON form was read."""
        thousandths = np.array(stored.thousandths, dtype=np.float64).reshape(-1, len(stored.layers))
        return cls(stored.layers, thousandths / _UNIT)


class StoredSteps(Stored):
    """A sample of steps in a file: for each step and layer how high its norms were, in thousandths."""

    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    thousandths: Annotated[list[list[_Share]], Field(max_length=MOST_STEPS)]

    @model_validator(mode="after")
    def _fits(self) -> StoredSteps:
        if self.layers != sorted(set(self.layers)):
            msg = f"the layers of its steps must ascend, and are {self.layers}"
            raise ValueError(msg)
        if any(len(row) != len(self.layers) for row in self.thousandths):
            msg = f"a step must have one number for each of its {len(self.layers)} layers"
            raise ValueError(msg)
        return self


def evenly(number: int) -> NDArray[np.int64]:
    """Return which of a number of steps are kept: all up to `MOST_STEPS`, and else so many, evenly spaced."""
    return np.linspace(0, max(0, number - 1), min(number, MOST_STEPS)).round().astype(np.int64)

"""The steps of recorded answers, kept until the distributions are known that their norms are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from langnorm.norms.step_ranks import MOST_STEPS, StepSample
from langnorm.norms.stored_arrays import from_text, to_text
from langnorm.norms.token_table import shares_below
from langnorm.stored import Stored

if TYPE_CHECKING:
    from langnorm.norms.sketch import QuantileSketch
    from langnorm.norms.token_table import TokenTable


class RecordedSteps:
    """Some of the steps that were recorded, evenly spaced: every one, then every second one, and so on.

    Args:
        num_layers: Number of decoder layers.

    Attributes:
        stride: How many steps were recorded for each that is kept.
    """

    def __init__(self, num_layers: int) -> None:
        self.num_layers = num_layers
        self.stride = 1
        self._num_recorded = 0
        self._ids: list[NDArray[np.int32]] = []
        self._norms: list[NDArray[np.float32]] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, token_ids: Sequence[int], norms: NDArray[np.float64]) -> None:
        """Add a step.

        Args:
            token_ids: Its tokens (T,) that were run and count.
            norms: Their norms (T, L) in all decoder layers; a step without tokens is none.
        """
        if not len(norms):
            return
        if self._num_recorded % self.stride == 0:
            self._ids.append(np.array(token_ids, dtype=np.int32))
            self._norms.append(norms.astype(np.float32))
            if len(self._ids) == 2 * MOST_STEPS:
                self.stride *= 2
                self._ids, self._norms = self._ids[::2], self._norms[::2]
        self._num_recorded += 1

    def by_layer(self, sketch: QuantileSketch) -> StepSample | None:
        """Return how high the norms of the steps are among all norms of each layer; None without steps."""
        return StepSample(sketch.layers, self._means(sketch.percentile(self._rows()))) if self._ids else None

    def by_token(self, table: TokenTable | None) -> StepSample | None:
        """Return how high the norms of the steps are beside the usual ones of their tokens.

        None without steps or without a table of tokens.
        """
        if not self._ids or table is None:
            return None
        distances = table.relative(np.concatenate(self._ids), self._rows()[:, list(table.layers)])
        return StepSample(table.layers, self._means(shares_below(distances)))

    def _rows(self) -> NDArray[np.float64]:
        return np.concatenate(self._norms).astype(np.float64)

    def _means(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the means of the rows (tokens, L) of each step (S, L)."""
        lengths = np.array([len(ids) for ids in self._ids])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        return np.asarray(np.add.reduceat(shares, starts, axis=0) / lengths[:, None])

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON form."""
        return {
            "layers": self.num_layers,
            "stride": self.stride,
            "recorded": self._num_recorded,
            "lengths": [len(ids) for ids in self._ids],
            "ids": to_text(np.concatenate(self._ids) if self._ids else np.zeros(0, dtype=np.int32)),
            "norms": to_text(np.concatenate(self._norms) if self._norms else np.zeros(0, dtype=np.float32)),
        }

    @classmethod
    def from_stored(cls, stored: StoredRecordedSteps) -> RecordedSteps:
        """Return the steps whose JSON form was read."""
        steps = cls(stored.layers)
        steps.stride, steps._num_recorded = stored.stride, stored.recorded
        bounds = np.cumsum(stored.lengths)[:-1].tolist()
        if stored.lengths:
            steps._ids = np.split(stored.id_array, bounds)
            steps._norms = np.split(stored.norm_array.reshape(-1, stored.layers), bounds)
        return steps


class StoredRecordedSteps(Stored):
    """Recorded steps in a file: the numbers of their tokens, and ids (int32) and norms (float32) of these in base64."""

    layers: Annotated[int, Field(ge=1)]
    stride: Annotated[int, Field(ge=1)]
    recorded: Annotated[int, Field(ge=0)]
    lengths: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=2 * MOST_STEPS)]
    ids: str
    norms: str

    @model_validator(mode="after")
    def _fits(self) -> StoredRecordedSteps:
        num_tokens = sum(self.lengths)
        for name, number in (("id_array", num_tokens), ("norm_array", num_tokens * self.layers)):
            if len(getattr(self, name)) != number:
                msg = f"the {name.partition('_')[0]}s of its steps must be {number}"
                raise ValueError(msg)
        return self

    @property
    def id_array(self) -> NDArray[np.int32]:
        """The ids of all tokens, one step after the other (tokens,)."""
        return from_text("ids", self.ids, np.int32)

    @property
    def norm_array(self) -> NDArray[np.float32]:
        """Their norms (tokens * L,)."""
        return from_text("norms", self.norms, np.float32)

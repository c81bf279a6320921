"""What has been counted of the norms of each token id: exact, mergeable, and free of any model."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from langnorm.errors import OptionError
from langnorm.norms.stored_arrays import from_text, to_text
from langnorm.norms.token_table import LEAST_SPREAD, FloatArray, TokenTable, check_rows, log_norms
from langnorm.stored import Stored

_VERSION: Literal[1] = 1


class TokenSums:
    """For each token id how often it was seen, and for each layer the mean of ln n and the squares around it.

    Only ids that were seen take memory: 16 bytes per layer, and 12. What is merged in another order is the same but for
    rounding.

    Args:
        layers: 0-based indices of the decoder layers, ascending.

    Attributes:
        ids: The ids that were seen (ids,), int32, ascending.
        counts: How often each was (ids,), int64.
        means: Mean of ln n (ids, L).
        squares: Sum of the squared distances from that mean (ids, L).

    Raises:
        OptionError: `layers` is not ascending, or has a negative index.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self.layers = tuple(operator.index(layer) for layer in layers)
        if list(self.layers) != sorted(set(self.layers)) or any(layer < 0 for layer in self.layers):
            msg = f"`layers={list(self.layers)}` is not allowed. Use indices from 0 up, ascending, each once."
            raise OptionError(msg)
        self.ids: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self.counts: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.means: FloatArray = np.zeros((0, len(self.layers)))
        self.squares: FloatArray = np.zeros((0, len(self.layers)))
        self._is_shared = False  # whether copies and tables may have the same arrays

    @property
    def num_tokens(self) -> int:
        """Number of tokens that were counted."""
        return int(self.counts.sum())

    def update(self, ids: ArrayLike, norms: ArrayLike, counted: ArrayLike | None = None) -> None:
        """Add tokens. One with a norm that is 0 or not finite in some layer is no token of any use, and left out.

        Args:
            ids: Of the tokens that the rows belong to (T,) in order; those that were not run may follow.
            norms: A row per token that was run (T, L).
            counted: Which rows to add (T,), bool; by default all.

        Raises:
            OptionError: There is not one column per layer, there are fewer ids than rows, or an id is below 0 or 2^31.
        """
        of_rows, rows = check_rows(ids, norms, len(self.layers))
        values = log_norms(rows)
        is_counted = np.isfinite(values).all(axis=1)
        if counted is not None:
            is_counted &= np.asarray(counted, dtype=bool)
        of_rows, values = of_rows[is_counted], values[is_counted]
        added = TokenSums(self.layers)
        unique, places, counts = np.unique(of_rows, return_inverse=True, return_counts=True)
        added.ids, added.counts = unique.astype(np.int32), counts.astype(np.int64)
        added.means = _sums_by(places, values, len(unique)) / counts[:, None]
        added.squares = _sums_by(places, (values - added.means[places]) ** 2, len(unique))
        self.merge(added)

    def merge(self, other: TokenSums) -> None:
        """Add all tokens of another one of the same layers.

        Raises:
            OptionError: Its layers are others.
        """
        if other.layers != self.layers:
            msg = (
                f"Norms of tokens in the layers `{list(other.layers)}` cannot be added to those in "
                f"`{list(self.layers)}`. Use `select` to reduce both to the same layers."
            )
            raise OptionError(msg)
        self._make_room(other.ids)
        places = np.searchsorted(self.ids, other.ids)
        counts = self.counts[places]
        total = counts + other.counts
        share = (other.counts / total)[:, None]
        apart = other.means - self.means[places]
        self.counts[places] = total
        self.means[places] += share * apart
        self.squares[places] += other.squares + counts[:, None] * share * apart**2

    def _make_room(self, ids: NDArray[np.int32]) -> None:
        """Add ids that were not seen yet, as seen 0 times, and leave the arrays to the copies that share them."""
        new = np.setdiff1d(ids, self.ids, assume_unique=True)
        if len(new):
            places = np.searchsorted(self.ids, new)
            self.ids = np.insert(self.ids, places, new)
            self.counts = np.insert(self.counts, places, 0)
            self.means = np.insert(self.means, places, 0.0, axis=0)
            self.squares = np.insert(self.squares, places, 0.0, axis=0)
        elif self._is_shared:
            self.counts, self.means, self.squares = self.counts.copy(), self.means.copy(), self.squares.copy()
        self._is_shared = False

    def copy(self) -> TokenSums:
        """Return a copy that further updates of this one do not change."""
        return self.select(self.layers)

    def select(self, layers: Sequence[int]) -> TokenSums:
        """Return a copy with only some of the layers, given in ascending order.

        Raises:
            OptionError: A layer is not one of these, or they are not ascending.
        """
        selected = TokenSums(layers)
        if missing := sorted(set(selected.layers) - set(self.layers)):
            msg = f"Layers `{missing}` are not in these norms of tokens. Use some of `{list(self.layers)}`."
            raise OptionError(msg)
        selected.ids, selected.counts = self.ids, self.counts
        self._is_shared = selected._is_shared = True
        if selected.layers == self.layers:
            selected.means, selected.squares = self.means, self.squares
        else:
            columns = [self.layers.index(layer) for layer in selected.layers]
            selected.means, selected.squares = self.means[:, columns], self.squares[:, columns]
        return selected

    def table(self) -> TokenTable | None:
        """Return what is usual for each token id; None while no token has been counted."""
        num_tokens, num_ids = self.num_tokens, len(self.ids)
        if not num_tokens:
            return None
        centres = self.counts @ self.means / num_tokens
        offsets = self.means - centres
        whole = self.squares.sum(axis=0) + self.counts @ offsets**2
        # Each id has taken a mean of its own, and so a degree of freedom; where all are spent, ids explain nothing.
        within = self.squares.sum(axis=0) / (num_tokens - num_ids) if num_tokens > num_ids else whole / num_tokens
        self._is_shared = True
        spreads = np.maximum(np.sqrt(within), LEAST_SPREAD)
        ratios = np.sqrt((self.squares / spreads**2).mean(axis=1) / self.counts)
        return TokenTable.of(
            self.layers, self.ids, self.counts, offsets=offsets, ratios=ratios, centres=centres, spreads=spreads
        )

    @classmethod
    def of(cls, table: TokenTable) -> TokenSums:
        """Return what was counted for a table, as far as it still knows."""
        sums = cls(table.layers)
        sums.ids, sums.counts = table.ids, table.counts.astype(np.int64)
        sums.means = table.centres + table.offsets.astype(np.float64)
        sums.squares = table.ratios.astype(np.float64)[:, None] ** 2 * table.spreads**2 * table.counts[:, None]
        return sums

    def merged_with(self, other: TokenSums) -> TokenSums:
        """Return the tokens of both; arguments and errors as for `merge`."""
        both = self.copy()
        both.merge(other)
        return both

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON form, which holds every bit: arrays in base64, little-endian."""
        return {
            "version": _VERSION,
            "layers": list(self.layers),
            "ids": to_text(self.ids),
            "counts": to_text(self.counts),
            "means": to_text(self.means),
            "squares": to_text(self.squares),
        }

    @classmethod
    def from_stored(cls, stored: StoredSums) -> TokenSums:
        """Return what a JSON form that has been read says."""
        sums = cls(stored.layers)
        sums.ids, sums.counts, sums.means, sums.squares = stored.columns()
        return sums


class StoredSums(Stored):
    """The JSON form of `TokenSums`; fields as there, arrays as `TokenSums.to_dict` codes them."""

    version: Literal[1]
    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1_000)]
    ids: str
    counts: str
    means: str
    squares: str

    @model_validator(mode="after")
    def _fits(self) -> StoredSums:
        if self.layers != sorted(set(self.layers)):
            msg = "its layers must ascend"
            raise ValueError(msg)
        ids, counts, means, squares = self.columns()
        if len({len(column) for column in (ids, counts, means, squares)}) > 1:
            msg = "it has not as many counts, means and squares as ids"
            raise ValueError(msg)
        if (ids < 0).any() or (np.diff(ids) <= 0).any() or (counts < 1).any() or (counts > 2**53).any():
            msg = "its ids must ascend from 0, each seen once at least"
            raise ValueError(msg)
        if not (np.isfinite(means).all() and np.isfinite(squares).all() and (squares >= 0).all()):
            msg = "its means and squares must be finite, and squares not below 0"
            raise ValueError(msg)
        return self

    def columns(self) -> tuple[NDArray[np.int32], NDArray[np.int64], FloatArray, FloatArray]:
        """Return ids, counts, means and squares.

        Raises:
            ValueError: One of them is no array of its kind.
        """
        means, squares = (from_text(name, getattr(self, name), np.float64) for name in ("means", "squares"))
        shape = (-1, len(self.layers)) if self.layers else (0, 0)
        return (
            from_text("ids", self.ids, np.int32),
            from_text("counts", self.counts, np.int64),
            means.reshape(shape),
            squares.reshape(shape),
        )


def _sums_by(places: NDArray[np.intp], values: FloatArray, num_ids: int) -> FloatArray:
    """Return the sums (ids, L) of rows (T, L) that belong to ids (T,)."""
    columns = [np.bincount(places, column, num_ids) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros((num_ids, 0))

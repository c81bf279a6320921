"""The usual norm of each token id: what a token's norm is compared with where its id is to explain none of it.

The norm of a late layer depends much on which token it is. With x = ln n_t^l and the tokens that were counted,

    c_l      mean of x in layer l
    w_l      spread (standard deviation) of x around the mean of its own id, in layer l, over all ids
    m_il     mean of x of id i, seen N_i times
    s_i      spread of x around m_il in units of w_l, the root mean square over layers

an id that was seen rarely is taken to be much like all tokens, with the weight of k = 10 tokens:

    usual_il = c_l + N_i / (N_i + k) (m_il - c_l)
    spread_i = sqrt((N_i (s_i^2 + mean_l ((m_il - usual_il) / w_l)^2) + k) / (N_i + k))
    z_t^l    = (x - usual_il) / (w_l spread_i)

Ours; an id that was never seen has c_l and w_l.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langnorm.errors import OptionError

FloatArray = NDArray[np.float64]

PRIOR_TOKENS = 10.0
"""How often an id must have been seen until its own norm counts as much as the layer's."""

FARTHEST = 10.0
"""Where z ends, in both directions: beyond, nothing is told apart, and one odd token outweighs no answer."""

LEAST_SPREAD = 1e-3
"""Least spread of a layer, of ln n: half precision knows usual norms no better, and no layer's norms are so steady."""

_LARGEST_HALF = 65504.0


@dataclass(frozen=True, slots=True, eq=False)
class TokenTable:
    """What is usual for each token id in some layers, in half precision; see the module. It never changes.

    Attributes:
        layers: 0-based indices of the decoder layers, ascending.
        ids: The ids that were seen (ids,), int32, ascending.
        counts: N_i (ids,), int64.
        offsets: m_il - c_l (ids, L), float16.
        ratios: s_i (ids,), float16.
        centres: c_l (L,).
        spreads: w_l (L,).
        missed: mean_l ((m_il - usual_il) / w_l)^2 (ids,), over all layers that the table has had.
    """

    layers: tuple[int, ...]
    ids: NDArray[np.int32]
    counts: NDArray[np.int64]
    offsets: NDArray[np.float16]
    ratios: NDArray[np.float16]
    centres: FloatArray
    spreads: FloatArray
    missed: FloatArray

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenTable) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in self.__slots__
        )

    def __hash__(self) -> int:
        return hash((self.layers, self.ids.tobytes(), self.counts.tobytes()))

    def __repr__(self) -> str:
        return f"TokenTable(layers={list(self.layers)}, num_ids={len(self.ids)}, num_tokens={self.num_tokens})"

    @classmethod
    def of(
        cls,
        layers: Sequence[int],
        ids: NDArray[np.int32],
        counts: NDArray[np.int64],
        *,
        offsets: FloatArray,
        ratios: FloatArray,
        centres: FloatArray,
        spreads: FloatArray,
    ) -> TokenTable:
        """Return the table of these values, rounded to half precision where it keeps no more."""
        kept = np.clip(offsets, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)
        left = PRIOR_TOKENS / (counts + PRIOR_TOKENS)  # how much of its offset an id is not believed
        return cls(
            layers=tuple(layers),
            ids=ids,
            counts=counts,
            offsets=kept,
            ratios=np.minimum(ratios, _LARGEST_HALF).astype(np.float16),
            centres=centres,
            spreads=spreads,
            missed=((left[:, None] * kept.astype(np.float64) / spreads) ** 2).mean(axis=1),
        )

    @property
    def num_tokens(self) -> int:
        """Number of tokens that were counted."""
        return int(self.counts.sum())

    @property
    def explained(self) -> FloatArray:
        """Share of the variance of ln n in each layer that the token id explains (L,), 0 to 1.

        1 - w_l^2 / v_l with the variance v_l of all tokens. In w_l each id has cost a degree of freedom: ids that were
        seen once explain nothing.
        """
        num_tokens, num_ids = self.num_tokens, len(self.ids)
        between = self.counts @ self.offsets.astype(np.float64) ** 2
        whole = self.spreads**2 * (num_tokens - num_ids) + between
        if num_tokens <= num_ids:
            return np.zeros(len(self.layers))
        return np.asarray(np.clip(1 - self.spreads**2 * (num_tokens - 1) / whole, 0, 1))

    def relative(self, ids: ArrayLike, norms: ArrayLike) -> FloatArray:
        """Return z_t^l (T, L): how far norms are above the usual ones of their ids, in spreads, -10 to 10.

        Args:
            ids: Of the tokens that the rows belong to (T,) in order; those that were not run may follow.
            norms: A row per token that was run (T, L).

        Returns:
            NaN for a norm that is NaN.

        Raises:
            OptionError: There is not one column per layer, there are fewer ids than rows, or an id is below 0 or 2^31.
        """
        of_rows, rows = check_rows(ids, norms, len(self.layers))
        places = np.searchsorted(self.ids, of_rows)
        places[places == len(self.ids)] = 0
        is_known = self.ids[places] == of_rows if len(self.ids) else np.zeros(len(of_rows), dtype=bool)
        counts = np.where(is_known, self.counts[places] if len(self.ids) else 0, 0)[:, None]  # (T, 1)
        offsets, squares = np.zeros(rows.shape), np.ones((len(rows), 1))
        known = places[is_known]
        offsets[is_known] = self.offsets[known]
        squares[is_known, 0] = self.ratios[known].astype(np.float64) ** 2 + self.missed[known]
        own = counts / (counts + PRIOR_TOKENS)
        spread = np.sqrt((counts * squares + PRIOR_TOKENS) / (counts + PRIOR_TOKENS))
        z = (log_norms(rows) - self.centres - own * offsets) / (self.spreads * spread)
        return np.asarray(np.clip(z, -FARTHEST, FARTHEST))

    def select(self, layers: Sequence[int]) -> TokenTable:
        """Return the table of some of its layers, given in ascending order; the spread of an id stays that of all.

        Raises:
            OptionError: A layer is not one of the table.
        """
        if tuple(layers) == self.layers:
            return self
        if missing := [layer for layer in layers if layer not in self.layers]:
            msg = f"Layers `{missing}` are not in this table of tokens. Use some of `{list(self.layers)}`."
            raise OptionError(msg)
        columns = [self.layers.index(layer) for layer in layers]
        return TokenTable(
            tuple(layers),
            self.ids,
            self.counts,
            self.offsets[:, columns],
            self.ratios,
            self.centres[columns],
            self.spreads[columns],
            self.missed,
        )


def shares_below(z: FloatArray) -> FloatArray:
    """Return Phi(z), the share of a standard normal distribution below each z; 0 to 1, same shape, NaN for NaN."""
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z.flat], dtype=np.float64).reshape(z.shape)


def log_norms(norms: FloatArray) -> FloatArray:
    """Return ln n; minus infinity for 0, NaN for what is no norm."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(norms))


def check_rows(ids: ArrayLike, norms: ArrayLike, num_layers: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Return the ids (T,) and norms (T, L) of the tokens that were run.

    Raises:
        OptionError: There is not one column per layer, there are fewer ids than rows, or an id is below 0 or 2^31.
    """
    rows = np.asarray(norms, dtype=np.float64)
    rows = rows.reshape(0, num_layers) if not len(rows) else rows
    if rows.ndim != 2 or rows.shape[1] != num_layers:
        msg = f"Norms of shape `{rows.shape}` do not fit `{num_layers}` layers. Give a row per token, a norm per layer."
        raise OptionError(msg)
    of_rows = np.asarray(ids, dtype=np.int64)[: len(rows)]
    if of_rows.shape != (len(rows),):
        msg = f"There are `{len(of_rows)}` token ids for `{len(rows)}` rows of norms. Give the id of each row's token."
        raise OptionError(msg)
    if len(of_rows) and not 0 <= of_rows.min() <= of_rows.max() < 2**31:
        msg = f"Token ids from `{of_rows.min()}` to `{of_rows.max()}` are not allowed. Use ids from 0 and below 2^31."
        raise OptionError(msg)
    return of_rows, rows

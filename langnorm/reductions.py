"""What is kept of each generated token besides norms: its distribution and its states, reduced to a few numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

DISTRIBUTION = "token_distribution"
"""Where messages keep a `Distribution`, beside the norms of tokens."""

LENS = "token_lens"
"""Where they keep a `Lens`."""

SETTLED_WITHIN = 0.5
"""Bits of Jensen-Shannon divergence within which the distribution of an earlier layer counts as the final one."""


class _Arrays:
    """Fields that are arrays; two of a kind are equal when all numbers are."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return all(_is_same(getattr(self, name), getattr(other, name)) for name in names)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other) if isinstance(one, _Arrays) else one is other


def _as_lists(arrays: Any) -> dict[str, list[float]]:
    return {field.name: [float(f"{x:.6g}") for x in getattr(arrays, field.name)] for field in fields(arrays)}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Distribution(_Arrays):
    """The distributions that T generated tokens were taken from, each reduced to six numbers.

    They are the model's own, over all V tokens of the vocabulary, before temperature and all that chooses among tokens.
    Row i is the distribution from which token i was taken. Log-probabilities below -9999 count as -9999.

    Attributes:
        entropy: H = -sum_j p(j) ln p(j) (T,), in nats; 0 to ln V.
        self_certainty: KL(uniform, p) = -ln V - (1/V) sum_j ln p(j) (T,), in nats; 0 and above, high where the model is
            sure. Source: arXiv 2502.18581.
        top5_logprob: Mean log-probability of the 5 most likely tokens (T,), in nats; up to -ln 5.
        top20_logprob: That of the 20 most likely tokens, or of all where the vocabulary is smaller (T,).
        top5_mass: Probability of the 5 most likely tokens together (T,); 0 to 1.
        logprob: Log-probability of the token that was taken (T,), in nats.
    """

    entropy: FloatArray
    self_certainty: FloatArray
    top5_logprob: FloatArray
    top20_logprob: FloatArray
    top5_mass: FloatArray
    logprob: FloatArray

    def to_dict(self) -> dict[str, list[float]]:
        """Return its fields as messages keep them: lists of numbers of 6 digits."""
        return _as_lists(self)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Lens(_Arrays):
    """How late in the stack the distributions that T generated tokens were taken from came about (a logit lens).

    What the model does after its last decoder layer (norm, unembedding, and a scale or cap of logits) is done to the
    state after each of K read layers; p_t^l is the distribution that this gives for token t after layer l, and p_t the
    model's own, before temperature. Of N decoder layers, layer l has the depth (l + 1) / N. The last layer, where it is
    among those read, has p_t itself.

    Settling follows the Deep-Thinking Ratio with one difference: there a distribution has settled where it first comes
    near the final one, here where it comes to stay. Source: arXiv 2602.13517.

    Attributes:
        settling: The depth of the first read layer from which on JSD(p_t^l, p_t), in base 2, is at most
            `SETTLED_WITHIN` in all of those read (T,), in (0, 1]; 1 where it is not so of the last of them.
        agreement: Share of the read layers whose most likely token is that of p_t (T,), 0 to 1.
    """

    settling: FloatArray
    agreement: FloatArray

    def to_dict(self) -> dict[str, list[float]]:
        """Return its fields as messages keep them: lists of numbers of 6 digits."""
        return _as_lists(self)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Updates(_Arrays):
    """What each recorded layer did to the residual stream at each of the first T - 1 tokens.

    h_t^l is the residual stream after layer l at token t, with all that interventions made of it; h_t^-1 is what enters
    the first layer: the embedding of the token, and of its position where the model adds one. The update is
    u_t^l = h_t^l - h_t^{l-1}. Cosines with a state of length 0 are 0.

    Attributes:
        norms: ||u_t^l|| (T - 1, L).
        previous_norms: ||h_t^{l-1}|| (T - 1, L).
        layer_cosines: Cosine between h_t^l and h_t^{l-1} (T - 1, L).
        token_cosines: Cosine between h_t^l and h_{t-1}^l (T - 1, L); the token before the first one is the last of the
            prompt.
    """

    norms: FloatArray
    previous_norms: FloatArray
    layer_cosines: FloatArray
    token_cosines: FloatArray

    @property
    def relative(self) -> FloatArray:
        """||u_t^l|| / ||h_t^{l-1}|| (T - 1, L); infinite where the state before is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.norms / self.previous_norms


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reductions(_Arrays):
    """What was kept of a sequence of T tokens; None is what was not asked for.

    Attributes:
        distribution: Of each of its tokens.
        lens: Of each of its tokens.
        updates: Of each of its tokens but the last, at each recorded layer.
        mean_states: Means of the states of its tokens but the last (N + 1, d): of what enters the first of the N
            decoder layers, then of what each of them put out; (0, d) where none of its tokens was run.
    """

    distribution: Distribution | None = None
    lens: Lens | None = None
    updates: Updates | None = None
    mean_states: FloatArray | None = None

"""Responses as scores see them, drawn or written down."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from langnorm.reductions import Distribution, Lens, Reductions, Updates
from langnorm.scores.samples import Sample

TEXTS = ["12", " 7", "0\n", "\u0663", "", " ", "+", "a1", "1.", "-3", "\u00bd", "1 2", "so"]
"""Of tokens: numerals and what is none."""


@st.composite
def samples(draw: st.DrawFn, num_layers: int | None = None, min_rows: int = 0, most_rows: int = 40) -> Sample:
    """Draw a response that keeps `min_rows` rows at least when its sinks are masked, and has `most_rows` at most."""
    num_layers = draw(st.integers(1, 3)) if num_layers is None else num_layers
    length = draw(st.integers(min_rows, most_rows))
    # Floats from a seed: drawing hundreds of them one by one takes hypothesis half a second.
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    norms = 10 ** rng.uniform(-2, 5, size=(length + 1, num_layers))
    if draw(st.booleans()):
        norms = norms.round()  # ties, with the threshold too
    num_sinks = draw(st.integers(0, length - min_rows))
    # The last token has no row, so that the last step may have none.
    cuts = sorted(draw(st.sets(st.integers(0, length + 1), max_size=5)))
    return Sample(
        norms=norms[:-1].tolist(),
        layers=range(10, 10 + num_layers),
        thresholds=norms[rng.integers(length + 1)].tolist(),
        sinks=sorted(rng.permutation(length)[:num_sinks].tolist()),
        steps=list(itertools.pairwise(cuts)),
        logprobs=(-rng.exponential(2.0, size=length + 1)).tolist(),
        texts=rng.choice(TEXTS, size=length + 1).tolist(),
        reductions=reductions(rng, length, num_layers),
        relative_norms=rng.normal(size=(length, num_layers)).tolist(),
    )


def reductions(rng: np.random.Generator, num_rows: int, num_layers: int) -> Reductions:
    """Return what may be kept of a response of one token more than it has rows, without a model."""
    logprobs = np.sort(-rng.exponential(3.0, size=(num_rows + 1, 20)), axis=1)[:, ::-1]
    shape = (num_rows, num_layers)
    return Reductions(
        distribution=Distribution(
            entropy=rng.exponential(1.0, size=num_rows + 1),
            self_certainty=rng.exponential(8.0, size=num_rows + 1),
            top5_logprob=logprobs[:, :5].mean(axis=1),
            top20_logprob=logprobs.mean(axis=1),
            top5_mass=rng.uniform(size=num_rows + 1),
            logprob=logprobs[:, 0],
        ),
        updates=Updates(
            norms=rng.exponential(1.0, size=shape),
            previous_norms=1 + rng.exponential(1.0, size=shape),
            layer_cosines=rng.uniform(-1, 1, size=shape),
            token_cosines=rng.uniform(-1, 1, size=shape),
        ),
        mean_states=rng.normal(size=(5, 7)).cumsum(axis=0),
        lens=Lens(
            settling=rng.integers(1, 21, size=num_rows + 1) / 20,
            agreement=rng.integers(0, 5, size=num_rows + 1) / 4,
        ),
    )


def sample(*norms: float, tau: float | None = 2.5, **others) -> Sample:
    """Return a response of one layer."""
    thresholds = None if tau is None else (tau,)
    return Sample(norms=[(value,) for value in norms], layers=(9,), thresholds=thresholds, **others)

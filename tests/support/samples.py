"""Responses as scores see them, drawn or written down."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from langnorm.scores.samples import Sample

TEXTS = ["12", " 7", "0\n", "\u0663", "", " ", "+", "a1", "1.", "-3", "\u00bd", "1 2", "so"]
"""Of tokens: numerals and what is none."""


@st.composite
def samples(draw: st.DrawFn, num_layers: int | None = None, min_rows: int = 0) -> Sample:
    """Draw a response that keeps `min_rows` rows at least when its sinks are masked."""
    num_layers = draw(st.integers(1, 3)) if num_layers is None else num_layers
    num_rows = draw(st.integers(min_rows, 40))
    # Floats from a seed: drawing hundreds of them one by one takes hypothesis half a second.
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    norms = 10 ** rng.uniform(-2, 5, size=(num_rows + 1, num_layers))
    if draw(st.booleans()):
        norms = norms.round()  # ties, with the threshold too
    num_sinks = draw(st.integers(0, num_rows - min_rows))
    # The last token has no row, so that the last step may have none.
    cuts = sorted(draw(st.sets(st.integers(0, num_rows + 1), max_size=5)))
    return Sample(
        norms=norms[:-1].tolist(),
        layers=range(10, 10 + num_layers),
        thresholds=norms[rng.integers(num_rows + 1)].tolist(),
        sinks=sorted(rng.permutation(num_rows)[:num_sinks].tolist()),
        steps=list(itertools.pairwise(cuts)),
        logprobs=(-rng.exponential(2.0, size=num_rows + 1)).tolist(),
        texts=rng.choice(TEXTS, size=num_rows + 1).tolist(),
    )


def sample(*norms: float, tau: float | None = 2.5, **others) -> Sample:
    """Return a response of one layer."""
    thresholds = None if tau is None else (tau,)
    return Sample(norms=[(value,) for value in norms], layers=(9,), thresholds=thresholds, **others)

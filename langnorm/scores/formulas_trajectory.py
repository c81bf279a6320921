"""The formulas of scores that read the way of the residual stream, through the layers and through the tokens.

In the formulas h_t^l is the residual stream after layer l at token t, n_t^l its norm, u_t^l = h_t^l - h_t^{l-1}, and
H^l the mean of h_t^l over the generated tokens that were run, H^0 being that of what enters the first of the N layers.
States are those before the model's last norm. Recording costs a copy of one state per token and layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langnorm.scores.formulas_distribution import instability
from langnorm.scores.samples import FloatArray, Sample


def norm_bursts(sample: Sample) -> FloatArray:
    """Minus the bursts and rebounds of the norms, so that steady responses rank first.

    Per layer, with the norms' mean m and standard deviation s over the tokens that are no sinks: -(B + R) / 2
    (1 + s^2 / m^2), B = #{t : n_t - n_{t-8} > 2 s} and R = #{t : n_t - min_{r<t} n_r > 3 s}; up to 0. Counts grow in
    proportion to length. Source: `edis`, applied to norms; units and thresholds are ours.
    """
    rows = sample.rows
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    variation = np.divide(spread, mean, out=np.zeros_like(mean), where=mean > 0)
    is_flat = np.ptp(rows, axis=0) <= 1e-9 * mean  # differences of rounding
    units = np.where(is_flat, np.inf, spread)
    return np.asarray(-instability(rows / units, 2.0, 3.0) * (1 + variation**2))


def relative_update(sample: Sample) -> FloatArray | None:
    """Mean size of what a layer adds, relative to what it adds to.

    Per layer: mean_t ||u_t^l|| / n_t^{l-1} over the tokens that are no sinks, 0 and above; None where a state before is
    0. Does not depend on length. Source: ours; it is the growth that the paper's recursion reads, at computing tokens.
    """
    relative = sample.update_rows("relative")
    return relative.mean(axis=0) if np.isfinite(relative).all() else None


def update_cosine(sample: Sample) -> FloatArray:
    """Mean cosine between the states before and after a layer.

    Per layer: mean_t cos(h_t^l, h_t^{l-1}) over the tokens that are no sinks, -1 to 1: low where a layer turns the
    state. Does not depend on length. Source: ours.
    """
    return np.asarray(sample.update_rows("layer_cosines").mean(axis=0))


def coe_r(sample: Sample) -> float | None:
    """Chain of embedding: how far the mean state moves from layer to layer, less how much it turns.

    mean_l m_l - mean_l a_l, m_l = ||H^{l+1} - H^l|| / ||H^N - H^0||, a_l = angle(H^{l+1}, H^l) / angle(H^N, H^0), any
    number; None where the last state is where the first one is. Does not depend on length. Source: CoE-R of arXiv
    2410.13640.
    """
    chain = _chain(sample)
    return None if chain is None else float(chain[0].mean() - chain[1].mean())


def coe_c(sample: Sample) -> float | None:
    """Chain of embedding in the complex plane: moves as lengths, turns as angles.

    |mean_l m_l e^(i a_l)|, with m_l and a_l as in `coe_r`; 0 and above, None where they are not defined. Does not
    depend on length. Source: CoE-C of arXiv 2410.13640.
    """
    chain = _chain(sample)
    return None if chain is None else float(abs((chain[0] * np.exp(1j * chain[1])).mean()))


def consensus(samples: Sequence[Sample]) -> list[float | None]:
    """Minus the squared distances of a response's chain of embedding from those of the others.

    -sum_j (F_i - F_j)^2 over the responses to one prompt, F = `coe_r`; up to 0, None where F is not defined. Does not
    depend on length. It can be read of responses that have only begun. Source: ST-BoN, arXiv 2503.01422.
    """
    features = [coe_r(sample) for sample in samples]
    known = np.array([value for value in features if value is not None])
    return [None if value is None else -float(((value - known) ** 2).sum()) for value in features]


def _chain(sample: Sample) -> tuple[FloatArray, FloatArray] | None:
    """Return m_l and a_l (N,) each, or None where they are not defined."""
    states = sample.mean_states  # (N + 1, d)
    distance, angle = float(np.linalg.norm(states[-1] - states[0])), float(_angles(states[[0, -1]])[0])
    if not (distance and angle and np.linalg.norm(states, axis=1).all()):
        return None
    return np.linalg.norm(np.diff(states, axis=0), axis=1) / distance, _angles(states) / angle


def _angles(states: FloatArray) -> FloatArray:
    """Return the angle between each of some vectors (S, d) and the next one (S - 1,), in radians."""
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    units = np.divide(states, lengths, out=np.zeros_like(states), where=lengths > 0)
    # Of nearly parallel vectors the cosine says little: half the angle is found by the lengths of sum and difference.
    halves = np.arctan2(np.linalg.norm(np.diff(units, axis=0), axis=1), np.linalg.norm(units[1:] + units[:-1], axis=1))
    return np.asarray(2 * halves)

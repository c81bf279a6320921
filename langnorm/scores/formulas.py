"""The formulas of scores, each a function of one response.

In the formulas n_t is the norm of token t at one layer, tau that layer's threshold, p_t the probability of token t
and T the number of tokens. Tokens that were never run (the last one) and attention sinks count nowhere: t runs over
the rows that are left. The late tokens are the last ceil(0.3 T) of them. A formula of norms has one value per layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from langnorm.scores.samples import FloatArray, Sample


def total(sample: Sample) -> FloatArray:
    """Total norm.

    A = sum_t n_t, 0 and above. Grows in proportion to length. Source: arXiv 2606.06188.
    """
    return _sum(sample.rows)


def area(sample: Sample) -> FloatArray:
    """Area of the norms above the threshold.

    B = sum_t max(0, n_t - tau), 0 and above. Grows in proportion to length. Source: arXiv 2606.06188.
    """
    return _sum(_excess(sample.rows, sample))


def count(sample: Sample) -> FloatArray:
    """Count of the tokens with a norm above the threshold.

    C = #{t : n_t > tau}, 0 to T. Grows in proportion to length. Source: arXiv 2606.06188.
    """
    return _sum(sample.rows > sample.tau)


def late_area(sample: Sample) -> FloatArray:
    """Area of the norms above the threshold, late tokens only.

    D = B over the late tokens, 0 and above. Grows in proportion to length. Source: arXiv 2606.06188, which says the
    last 30 % of the tokens; that part of a token counts as a whole one is ours.
    """
    return _sum(_excess(sample.late_rows, sample))


def mean(sample: Sample) -> FloatArray:
    """Mean norm.

    A / T, 0 and above. Does not depend on length. Source: A of arXiv 2606.06188, per token.
    """
    return _mean(sample.rows)


def area_per_token(sample: Sample) -> FloatArray:
    """Mean excess of the norms over the threshold.

    B / T, 0 and above. Does not depend on length. Source: B of arXiv 2606.06188, per token.
    """
    return _mean(_excess(sample.rows, sample))


def rate(sample: Sample) -> FloatArray:
    """Share of the tokens with a norm above the threshold.

    C / T, 0 to 1. Does not depend on length. Source: C of arXiv 2606.06188, per token.
    """
    return _mean(sample.rows > sample.tau)


def late_rate(sample: Sample) -> FloatArray:
    """Share of the late tokens with a norm above the threshold.

    C / T over the late tokens, 0 to 1. Does not depend on length. Source: C and D of arXiv 2606.06188, per token.
    """
    return _mean(sample.late_rows > sample.tau)


def p90(sample: Sample) -> FloatArray:
    """90th percentile of the norms.

    The value at index 0.9 (T - 1) of the sorted norms, interpolated linearly between its neighbours; 0 and above. Does
    not depend on length but for very short responses, where it is lower. Source: a robust maximum; ours.
    """
    return np.quantile(sample.rows, 0.9, axis=0)


def min_step(sample: Sample) -> FloatArray:
    """Lowest mean norm of a step.

    min over steps s of mean_{t in s} n_t, 0 and above; without steps the mean norm. A minimum over more steps is
    lower, so it falls with length: slower than sums grow, and in the other direction. Source: ours, after the lowest
    group confidence of arXiv 2508.15260.
    """
    return np.asarray(np.min([_mean(rows) for rows in sample.step_rows], axis=0))


def tail(sample: Sample) -> FloatArray:
    """Total norm of the last third.

    sum of n_t over the last ceil(T / 3) tokens, 0 and above. Grows in proportion to length. Source: the text of arXiv
    2606.06188, of its deepest layers: `layers="deep"`.
    """
    return _sum(sample.tail_rows)


def tail_mean(sample: Sample) -> FloatArray:
    """Mean norm of the last third.

    `tail` / ceil(T / 3), 0 and above. Does not depend on length. Source: the text of arXiv 2606.06188, per token.
    """
    return _mean(sample.tail_rows)


def norm_trend(sample: Sample) -> FloatArray:
    """Mean norm of the last fifth less that of the first fifth.

    Over ceil(T / 5) tokens each, any number. Does not depend on length. Source: ours, after the confidence of a
    response's ends in arXiv 2608.09898.
    """
    rows = sample.rows
    num_tokens = (len(rows) + 4) // 5
    return _mean(rows[len(rows) - num_tokens :]) - _mean(rows[:num_tokens])


def token_norm(sample: Sample) -> FloatArray:
    """Mean norm relative to the usual norms of the same tokens.

    Per layer: mean of z_t, the distance of ln n_t from the usual one of that token id in its usual spread, -10 to 10.
    What is usual says the profile, or else the responses together with what the process has seen of the model. Costs a
    table look-up per token. Does not depend on length. Source: ours; see `langnorm.norms.token_table`.
    """
    return _mean(sample.relative_rows)


def shorter(sample: Sample) -> float | None:
    """Minus the number of tokens.

    -T over all generated tokens, sinks included; of a response that does not say how many they are, over those with a
    log-probability, or else with norms. -1 and below, None without any. What every other score has to beat: wrong
    answers tend to be long. Source: the usual baseline.
    """
    kept = sample.norms if sample.logprobs is None else sample.logprobs
    return -float(len(kept) if sample.num_tokens is None else sample.num_tokens) or None


def mean_logprob(sample: Sample) -> float:
    """Mean log-probability of the tokens, without norms.

    sum_t ln p_t / T over all generated tokens, up to 0. Does not depend on length. Source: the usual baseline.
    """
    return float(sample.token_logprobs.mean())


def lowest_window(sample: Sample, window: int = 64) -> float:
    """Lowest mean log-probability of a window of 64 tokens, without norms.

    min over windows w of `window` consecutive tokens of mean_{t in w} ln p_t, up to 0; a shorter response is one
    window. A minimum over more windows is lower, so it falls with length. Source: after the lowest group confidence
    of DeepConf, arXiv 2508.15260. There the confidence of a token is the negative mean log-probability of the k most
    likely tokens, in windows of 1024 or 2048 tokens; here it is the log-probability of the chosen token.
    """
    logprobs = sample.token_logprobs
    windows = np.lib.stride_tricks.sliding_window_view(logprobs, min(window, len(logprobs)))  # (windows, tokens)
    return float(windows.mean(axis=1).min())


def quiet_logprob(sample: Sample) -> FloatArray:
    """Mean log-probability of the tokens of low norm.

    Per layer: mean of ln p_t over the ceil(0.7 T) tokens of lowest norm (of equals the first), up to 0. High norms mark
    operators and tags, whose choice is one of style; what is computed between them has low norms. Does not depend on
    length. Source: ours.
    """
    rows, logprobs = sample.rows, sample.row_logprobs
    num_quiet = (7 * len(rows) + 9) // 10
    quiet = np.argsort(rows, axis=0, kind="stable")[:num_quiet]  # (tokens, L)
    return _mean(logprobs[quiet])


def growth(sample: Sample) -> float | None:
    """Growth of the norms from the first to the last of the layers.

    mean of ln (n_t of the last layer / n_t of the first), any number; None where fewer than two layers were read or one
    of these norms is 0. Does not depend on length. Source: ours.
    """
    first, last = sample.rows[:, 0], sample.rows[:, -1]
    if len(sample.layers) < 2 or not first.all() or not last.all():
        return None
    return float(np.log(last / first).mean())


def _excess(rows: FloatArray, sample: Sample) -> FloatArray:
    return np.maximum(0.0, rows - sample.tau)


def _sum(rows: FloatArray | NDArray[np.bool_]) -> FloatArray:
    return np.asarray(np.sum(rows, axis=0), dtype=np.float64)


def _mean(rows: FloatArray | NDArray[np.bool_]) -> FloatArray:
    return np.asarray(np.mean(rows, axis=0), dtype=np.float64)

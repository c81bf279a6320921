"""The formulas of scores that read the distributions from which tokens were taken, each a function of one response.

In the formulas p_t is the distribution from which token t was taken, before temperature, V the vocabulary and T the
number of generated tokens, of which all count. The confidence of a token is C_t = -mean of the k largest ln p_t: it is
high where the model is sure, as all but one of the k are then unlikely. Recording costs one pass over the logits.
"""

from __future__ import annotations

import numpy as np

from langnorm.scores.samples import FloatArray, Sample

WINDOW = 64
"""Tokens of a window of DeepConf. There it has 1024 or 2048, which short answers do not have."""


def self_certainty(sample: Sample) -> float:
    """Mean divergence of the distributions from the uniform one.

    mean_t of KL(uniform, p_t) = -ln V - (1/V) sum_j ln p_t(j), in nats, 0 and above. Does not depend on length. Source:
    arXiv 2502.18581.
    """
    return float(sample.distribution.self_certainty.mean())


def consilience(sample: Sample) -> float:
    """Confidence of the last fifth less three times that of the first fifth.

    With k = 5, over ceil(T / 5) tokens each, any number. Does not depend on length. Source: arXiv 2608.09898.
    """
    confidence = -sample.distribution.top5_logprob
    num_tokens = (len(confidence) + 4) // 5
    return float(confidence[len(confidence) - num_tokens :].mean() - 3 * confidence[:num_tokens].mean())


def edis(sample: Sample) -> float:
    """Minus the bursts and rebounds of the entropy, so that steady responses rank first.

    -(B + R) / 2 (1 + Var H), with B = #{t : H_t - H_{t-8} > 1} and R = #{t : H_t - min_{s<t} H_s > 1}; up to 0. Counts
    grow in proportion to length. Source: EDIS, arXiv 2602.01288; the distance of 8 tokens and the thresholds of 1 nat
    are ours.
    """
    entropy = sample.distribution.entropy
    return -float(instability(entropy[:, None], 1.0, 1.0)[0] * (1 + entropy.var()))


def deepconf_lowest(sample: Sample) -> float:
    """Confidence of the least confident window of 64 tokens.

    min over windows w of 64 consecutive tokens of mean_{t in w} C_t, with k = 20; a shorter response is one window. 0
    and above. A minimum over more windows is lower, so it falls with length. Source: DeepConf, arXiv 2508.15260.
    """
    return float(_window_confidences(sample)[0])


def deepconf_bottom(sample: Sample) -> float:
    """Mean confidence of the least confident tenth of the windows of 64 tokens.

    Of the ceil(W / 10) lowest of the W windows of `deepconf_lowest`, 0 and above. Falls with length until there are
    some dozens of windows. Source: DeepConf, arXiv 2508.15260.
    """
    confidences = _window_confidences(sample)
    return float(confidences[: (len(confidences) + 9) // 10].mean())


def deepconf_tail(sample: Sample) -> float:
    """Mean confidence of the last 64 tokens.

    mean of C_t with k = 20, of all tokens where there are fewer; 0 and above. Does not depend on length. Source:
    DeepConf, arXiv 2508.15260.
    """
    return float(-sample.distribution.top20_logprob[-WINDOW:].mean())


def instability(values: FloatArray, burst: float, rebound: float, distance: int = 8) -> FloatArray:
    """Return (B + R) / 2 of each column of some values (T, L), as `edis` and `norm_bursts` have it.

    Args:
        values: One per token and column.
        burst: B counts the tokens whose value is more than this above that of the token `distance` before.
        rebound: R counts the tokens whose value is more than this above the least before.
        distance: Of two tokens that are compared, in tokens.
    """
    bursts = (values[distance:] - values[:-distance] > burst).sum(axis=0)
    rebounds = (values[1:] - np.minimum.accumulate(values, axis=0)[:-1] > rebound).sum(axis=0)
    return np.asarray((bursts + rebounds) / 2, dtype=np.float64)


def _window_confidences(sample: Sample) -> FloatArray:
    """Return the mean confidence of each window, ascending."""
    confidence = -sample.distribution.top20_logprob
    windows = np.lib.stride_tricks.sliding_window_view(confidence, min(WINDOW, len(confidence)))  # (windows, tokens)
    return np.sort(windows.mean(axis=1))

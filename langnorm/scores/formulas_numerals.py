"""The formulas of scores that read numerals, or the states that lead to them, each a function of one response.

In a calculation the words between the numbers may be chosen freely, and how sure the model is of them says little. A
numeral is a token of digits alone; of a response without any, all tokens are read. In the formulas p_t is the
distribution from which token t was taken, before temperature, and n_t the norm of token t at one layer.
"""

from __future__ import annotations

import numpy as np

from langnorm.scores.samples import FloatArray, Sample


def numeral_logprob(sample: Sample) -> float:
    """Mean log-probability of the numerals, without norms.

    mean of ln p_t(token t) over the numerals, up to 0. Does not depend on length. Source: ours.
    """
    return float(_of_numerals(sample.token_logprobs, sample).mean())


def numeral_entropy(sample: Sample) -> float:
    """Minus the mean entropy of what numerals were taken from, so that sure responses rank first.

    -mean of H(p_t) over the numerals, in nats, up to 0. Does not depend on length. Recording costs one pass over the
    logits. Source: ours.
    """
    return -float(_of_numerals(sample.distribution.entropy, sample).mean())


def numeral_confidence(sample: Sample) -> float:
    """Mean confidence at the numerals.

    mean of C_t over the numerals, C_t = -mean of the 5 largest ln p_t, ln 5 and above. Does not depend on length.
    Recording costs one pass over the logits. Source: ours; C_t is that of arXiv 2508.15260.
    """
    return -float(_of_numerals(sample.distribution.top5_logprob, sample).mean())


def numeral_norm(sample: Sample) -> FloatArray:
    """Mean norm of the states from which numerals are predicted.

    Per layer: mean of n_t over the tokens t that are no sinks and are followed by a numeral, over all where none
    is; 0 and above. The norm of a numeral itself depends on which digits it has; that of the token before it, on what
    is computed there. Does not depend on length. Source: ours.
    """
    is_followed = np.append(sample.is_numeral[1:], False)[sample.row_indices]
    rows = sample.rows
    return np.asarray((rows[is_followed] if is_followed.any() else rows).mean(axis=0))


def _of_numerals(values: FloatArray, sample: Sample) -> FloatArray:
    """Return those of some values, one per token, that belong to numerals; all of them where there is none."""
    is_numeral = sample.is_numeral
    return values[is_numeral] if is_numeral.any() else values

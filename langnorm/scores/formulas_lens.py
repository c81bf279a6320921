"""The formulas of scores that read states as distributions of the next token, each a function of one response.

d_t is the depth at which token t settles and a_t the share of the read layers that agree with it, as `Lens` has them,
and T the number of generated tokens, of which all count. Recording costs one unembedding per token and read layer.
"""

from __future__ import annotations

from langnorm.scores.samples import Sample

LATE_DEPTH = 0.85
"""Depth from which on a token settles late, as in the Deep-Thinking Ratio."""


def settling(sample: Sample) -> float:
    """Share of the tokens that settle late.

    #{t : d_t >= 0.85} / T, 0 to 1; 1 where no read layer lies below that depth. Does not depend on length. Source: the
    Deep-Thinking Ratio, arXiv 2602.13517, which rises with the accuracy of large reasoning models. On the small model
    that `benchmarks/README.md` has it for, right answers have less of it than wrong ones: `{"settling": -1}`.
    """
    return float((sample.lens.settling >= LATE_DEPTH).mean())


def agreement(sample: Sample) -> float:
    """Mean share of the read layers whose most likely token is the final one's.

    mean of a_t, 0 to 1. Does not depend on length. Ours, not compared with right and wrong answers yet.
    """
    return float(sample.lens.agreement.mean())

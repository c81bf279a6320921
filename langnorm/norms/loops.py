"""Loops: an answer that says the same thing over and over."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

_LONGEST_PERIOD = 256  # tokens: a long paragraph
_TIMES = 4  # so often must a loop be gone through
_FEWEST_TOKENS = 24  # and so many tokens must repeat those before: dots and digits may well come in a row


def are_looping(tokens: Sequence[Hashable]) -> NDArray[np.bool_]:
    """Return which tokens are those of a loop, from its second round on.

    A loop is a stretch of up to 256 tokens that comes at least four times in a row, and repeats at least 24 tokens. The
    time is linear in the number of tokens.

    Args:
        tokens: Ids or texts of the tokens of an answer.

    Returns:
        Booleans (tokens,).
    """
    numbers: dict[Hashable, int] = {}
    ids = np.array([numbers.setdefault(token, len(numbers)) for token in tokens], dtype=np.int64)
    found = np.zeros(len(ids), dtype=np.bool_)
    for period in range(1, min(_LONGEST_PERIOD, len(ids) // _TIMES) + 1):
        repeats = np.concatenate([[False], ids[period:] == ids[:-period], [False]]).astype(np.int8)
        changes = np.diff(repeats)
        for start, end in zip(np.flatnonzero(changes == 1), np.flatnonzero(changes == -1), strict=True):
            if end - start >= max(_FEWEST_TOKENS, (_TIMES - 1) * period):
                found[start + period : end + period] = True
    return found

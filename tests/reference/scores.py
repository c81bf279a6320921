"""The scores as their formulas read: loops over lists of floats, no numpy.

Independent of langnorm on purpose. Every score of norms is of one layer: a list of norms, from which the sinks have
been taken already, and that layer's threshold.
"""

from __future__ import annotations

import math
import unicodedata
from fractions import Fraction


def without_sinks(norms: list[float], sinks: list[int]) -> list[float]:
    """Return the norms of one layer but for those at the indices `sinks`."""
    kept = []
    for index, norm in enumerate(norms):
        if index not in sinks:
            kept.append(norm)
    return kept


def late_part(norms: list[float]) -> list[float]:
    """Return the last 30 % of the tokens, rounded up to whole ones."""
    num_late = math.ceil(Fraction(3, 10) * len(norms))
    return [norm for index, norm in enumerate(norms) if index >= len(norms) - num_late]


def reference_sum(norms: list[float], tau: float) -> float:
    """Return A = sum_t n_t."""
    score = 0.0
    for norm in norms:
        score += norm
    return score


def reference_token_norm(relative: list[float]) -> float:
    """Return the mean of z_t, from which the sinks have been taken already."""
    return math.fsum(relative) / len(relative)


def reference_area(norms: list[float], tau: float) -> float:
    """Return B = sum_t max(0, n_t - tau)."""
    score = 0.0
    for norm in norms:
        if norm > tau:
            score += norm - tau
    return score


def reference_count(norms: list[float], tau: float) -> float:
    """Return C = #{t : n_t > tau}."""
    score = 0
    for norm in norms:
        if norm > tau:
            score += 1
    return score


def reference_late(norms: list[float], tau: float) -> float:
    """Return D: B over the last 30 % of the tokens."""
    return reference_area(late_part(norms), tau)


def reference_mean(norms: list[float], tau: float) -> float:
    """Return A / T."""
    return reference_sum(norms, tau) / len(norms)


def reference_area_per_token(norms: list[float], tau: float) -> float:
    """Return B / T."""
    return reference_area(norms, tau) / len(norms)


def reference_rate(norms: list[float], tau: float) -> float:
    """Return C / T."""
    return reference_count(norms, tau) / len(norms)


def reference_late_rate(norms: list[float], tau: float) -> float:
    """Return C / T over the last 30 % of the tokens."""
    return reference_rate(late_part(norms), tau)


def reference_p90(norms: list[float], tau: float) -> float:
    """Return the 90th percentile, on the line between the two norms around index 0.9 (T - 1)."""
    ordered = sorted(norms)
    place = Fraction(9, 10) * (len(norms) - 1)
    below = math.floor(place)
    above = math.ceil(place)
    return ordered[below] + float(place - below) * (ordered[above] - ordered[below])


def reference_tail(norms: list[float], tau: float) -> float:
    """Return the sum of n_t over the last third of the tokens, rounded up to whole ones."""
    num_tail = math.ceil(Fraction(1, 3) * len(norms))
    return reference_sum([norm for index, norm in enumerate(norms) if index >= len(norms) - num_tail], tau)


def reference_tail_mean(norms: list[float], tau: float) -> float:
    """Return the mean of n_t over the same tokens."""
    return reference_tail(norms, tau) / math.ceil(Fraction(1, 3) * len(norms))


def reference_norm_trend(norms: list[float], tau: float) -> float:
    """Return the mean of the last fifth of the tokens less that of the first, each rounded up to whole tokens."""
    num_tokens = math.ceil(Fraction(1, 5) * len(norms))
    first = [norm for index, norm in enumerate(norms) if index < num_tokens]
    last = [norm for index, norm in enumerate(norms) if index >= len(norms) - num_tokens]
    return reference_mean(last, tau) - reference_mean(first, tau)


REFERENCES = {
    "sum": reference_sum,
    "area": reference_area,
    "count": reference_count,
    "late": reference_late,
    "mean": reference_mean,
    "area_per_token": reference_area_per_token,
    "rate": reference_rate,
    "late_rate": reference_late_rate,
    "p90": reference_p90,
    "tail": reference_tail,
    "tail_mean": reference_tail_mean,
    "norm_trend": reference_norm_trend,
}
"""The scores that see nothing but the norms and the threshold of one layer."""


def reference_min_step(norms: list[float], sinks: list[int], steps: list[tuple[int, int]]) -> float:
    """Return the lowest mean norm of a step; `norms` still have their sinks. At least one norm is no sink."""
    means = []
    for start, end in steps:
        of_step = [norms[i] for i in range(start, end) if i < len(norms) and i not in sinks]
        if of_step:
            means.append(reference_mean(of_step, 0.0))
    if not means:
        means.append(reference_mean(without_sinks(norms, sinks), 0.0))
    return min(means)


def reference_mean_logprob(logprobs: list[float]) -> float:
    """Return the mean."""
    return reference_sum(logprobs, 0.0) / len(logprobs)


def reference_lowest_window(logprobs: list[float], window: int) -> float:
    """Return the lowest mean of `window` log-probabilities in a row, or of all when there are fewer."""
    if len(logprobs) < window:
        return reference_mean_logprob(logprobs)
    lowest = math.inf
    for start in range(len(logprobs) - window + 1):
        lowest = min(lowest, reference_mean_logprob(logprobs[start : start + window]))
    return lowest


def is_numeral(text: str) -> bool:
    """Return whether a token is made of digits alone, but for white space around them."""
    digits = text.strip()
    for character in digits:
        if unicodedata.category(character) != "Nd":
            return False
    return digits != ""


def reference_numeral_logprob(logprobs: list[float], texts: list[str]) -> float:
    """Return the mean over the tokens that are digits, or over all when none is."""
    chosen = []
    for logprob, text in zip(logprobs, texts, strict=True):
        if is_numeral(text):
            chosen.append(logprob)
    return reference_mean_logprob(chosen or logprobs)


def reference_numeral_norm(norms: list[float], texts: list[str], sinks: list[int]) -> float:
    """Return the mean norm, of one layer, of the tokens before numerals, or of all when there is none."""
    kept, followed = [], []
    for i, norm in enumerate(norms):
        if i in sinks:
            continue
        kept.append(norm)
        if i + 1 < len(texts) and is_numeral(texts[i + 1]):
            followed.append(norm)
    return math.fsum(followed or kept) / len(followed or kept)


def reference_quiet_logprob(norms: list[float], logprobs: list[float], sinks: list[int]) -> float:
    """Return the mean over the 70 % of the tokens, rounded up, that have the lowest norms of a layer."""
    loud_last = sorted((norm, i) for i, norm in enumerate(norms) if i not in sinks)
    num_quiet = math.ceil(Fraction(7, 10) * len(loud_last))
    return reference_mean_logprob([logprobs[i] for place, (_, i) in enumerate(loud_last) if place < num_quiet])


def reference_growth(first: list[float], last: list[float]) -> float | None:
    """Return the mean logarithm of the ratio between the norms of two layers, or None when a norm is 0."""
    if min(first) == 0 or min(last) == 0:
        return None
    return math.fsum(math.log(after) - math.log(before) for before, after in zip(first, last, strict=True)) / len(first)


def reference_weighted(columns: list[list[float | None]], weights: list[float]) -> list[float | None]:
    """Return the sum of z-scores times weights of each candidate; a column is one score of all candidates."""
    found = [None] * len(columns[0])
    complete = [i for i in range(len(found)) if all(column[i] is not None for column in columns)]
    for i in complete:
        found[i] = 0.0
    for column, weight in zip(columns, weights, strict=True):
        # One layer, whose z-scores are not averaged with any other.
        of_column = reference_combined([[column[i]] for i in complete]) if complete else []
        for i, z in zip(complete, of_column, strict=True):
            found[i] += weight * z
    return found


def reference_combined(table: list[list[float]]) -> list[float]:
    """Return the mean z-score of each candidate (row) over the layers (columns)."""
    combined = [0.0] * len(table)
    for layer in range(len(table[0])):
        column = [Fraction(row[layer]) for row in table]  # exact: squares of tiny values are no floats
        mean = sum(column) / len(column)
        variance = sum((value - mean) ** 2 for value in column) / len(column)
        for i, value in enumerate(column):
            # Values that differ by rounding only have no spread.
            if max(column) - min(column) > Fraction(1e-9) * max(abs(max(column)), abs(min(column))):
                z = math.copysign(math.sqrt((value - mean) ** 2 / variance), value - mean)
                combined[i] += z / len(table[0])
    return combined


def reference_spearman(first: list[float], second: list[float]) -> float | None:
    """Return Pearson's correlation of the ranks, or None when all of a list are the same."""
    ranks = []
    for values in (first, second):
        of_list = []
        for value in values:
            lower = sum(1 for other in values if other < value)
            same = sum(1 for other in values if other == value)
            of_list.append(lower + (same + 1) / 2)
        ranks.append(of_list)
    mean = (len(first) + 1) / 2
    products = sum((x - mean) * (y - mean) for x, y in zip(*ranks, strict=True))
    squares = [sum((x - mean) ** 2 for x in of_list) for of_list in ranks]
    return products / math.sqrt(squares[0] * squares[1]) if squares[0] and squares[1] else None

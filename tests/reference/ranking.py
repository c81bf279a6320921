"""The order of sampled responses as the documentation of `Selection` and of `Ranking` reads: loops over lists.

Independent of langnorm on purpose. A response is given by four lists, each with one entry per response: its score (None
when it has none), its answer (None when it has none), its number of tokens, and why it ended. Sums and comparisons are
exact where they can be, so that there is no rounding that both sides could have in common.
"""

from __future__ import annotations

import math
from fractions import Fraction

Score = float | None
Answer = str | None


def reference_tier(reason: str) -> int:
    """Return 0 for a response that ended by itself, 1 for one that was cut off, 2 for one that was stopped early."""
    if reason == "pruned":
        return 2
    if reason in ("length", "max_tokens", "MAX_TOKENS", "content_filter"):
        return 1
    return 0


def reference_votes(answers: list[Answer], reasons: list[str]) -> list[Answer]:
    """Return what each response votes for: its answer when it ended by itself, or None."""
    votes = []
    for answer, reason in zip(answers, reasons, strict=True):
        votes.append(answer if reference_tier(reason) == 0 else None)
    return votes


def reference_support(votes: list[Answer]) -> list[int]:
    """Return how many vote as each response does; 0 for those that do not vote."""
    support = []
    for vote in votes:
        same = 0
        for other in votes:
            if vote is not None and other == vote:
                same += 1
        support.append(same)
    return support


def is_near(first: float, second: float, others: list[float], near: float) -> bool:
    """Return whether two scores differ by no more than `near` standard deviations of `others`."""
    exact = [Fraction(score) for score in others]
    mean = sum(exact) / len(exact)
    variance = sum((score - mean) ** 2 for score in exact) / len(exact)
    return (Fraction(first) - Fraction(second)) ** 2 <= Fraction(near) ** 2 * variance


def reference_by_score(numbers: list[int], scores: list[Score], support: list[int], near: float) -> list[int]:
    """Return the responses `numbers` of one tier, best first."""
    left = []
    rest = []
    for number in numbers:
        if scores[number] is None:
            rest.append(number)
        else:
            left.append(number)
    all_scores = [scores[number] for number in left]
    ordered = []
    while left:
        highest = max(scores[number] for number in left)
        chosen = None
        for number in left:
            if not is_near(highest, scores[number], all_scores, near):
                continue
            if chosen is None or (support[number], scores[number]) > (support[chosen], scores[chosen]):
                chosen = number
        ordered.append(chosen)
        left.remove(chosen)
    while rest:
        chosen = rest[0]
        for number in rest:
            if support[number] > support[chosen]:
                chosen = number
        ordered.append(chosen)
        rest.remove(chosen)
    return ordered


def reference_weights(voting: list[int], scores: list[Score], vote: str, keep: float) -> dict[int, float]:
    """Return how much the vote of each of `voting` counts; these are in the order of their scores."""
    if vote == "majority":
        return dict.fromkeys(voting, 1.0)
    if vote == "filtered":
        # As the user wrote it: 0.28 of 25 are 7, though the float 0.28 is a little more.
        num_kept = max(1, math.ceil(Fraction(str(keep)) * len(voting)))
        return {number: 1.0 if place < num_kept else 0.0 for place, number in enumerate(voting)}
    known = [scores[number] for number in voting if scores[number] is not None]
    if not known:
        return dict.fromkeys(voting, 1.0)
    mean = math.fsum(known) / len(known)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in known) / len(known))
    weights = {}
    for number in voting:
        if scores[number] is None:
            weights[number] = 0.0
        elif min(known) == max(known):
            weights[number] = 1.0
        else:
            weights[number] = math.exp((scores[number] - mean) / deviation)
    return weights


def reference_by_vote(order: list[int], scores: list[Score], votes: list[Answer], vote: str, keep: float) -> list[int]:
    """Return the responses with the answers of most votes first; `order` is that of their scores."""
    if vote == "none":
        return list(order)
    voting = [number for number in order if votes[number] is not None]
    weights = reference_weights(voting, scores, vote, keep)
    answers = []  # in the order of their best responses
    for number in voting:
        if votes[number] not in answers:
            answers.append(votes[number])
    ordered = []
    while answers:
        winner, most = None, -1.0
        for answer in answers:
            total = math.fsum(weights[number] for number in voting if votes[number] == answer)
            if total > most:
                winner, most = answer, total
        ordered += [number for number in voting if votes[number] == winner]
        answers.remove(winner)
    return ordered + [number for number in order if votes[number] is None]


def reference_order(
    scores: list[Score], answers: list[Answer], reasons: list[str], vote: str, keep: float, near: float
) -> list[int]:
    """Return the numbers of the responses, best first."""
    votes = reference_votes(answers, reasons)
    support = reference_support(votes)
    order = []
    for tier in (0, 1, 2):
        of_tier = [number for number, reason in enumerate(reasons) if reference_tier(reason) == tier]
        # One that was stopped early has no score.
        order += reference_by_score(of_tier, [None] * len(scores) if tier == 2 else scores, support, near)
    return reference_by_vote(order, scores, votes, vote, keep)


def reference_majority(order: list[int], votes: list[Answer]) -> Answer:
    """Return the answer with most votes; of several, that of the response that ranks first."""
    support = reference_support(votes)
    majority, most = None, 0
    for number in order:
        if support[number] > most:
            majority, most = votes[number], support[number]
    return majority


def reference_agreement(order: list[int], votes: list[Answer]) -> float | None:
    """Return the share of the votes that are as the best response's, or None without votes."""
    cast = [vote for vote in votes if vote is not None]
    if not cast:
        return None
    return sum(1 for vote in cast if vote == votes[order[0]]) / len(cast)


def reference_tokens_saved(lengths: list[int], reasons: list[str]) -> Fraction:
    """Return how many tokens the stopped ones lack to the mean length of the others, not rounded."""
    whole = [length for length, reason in zip(lengths, reasons, strict=True) if reason != "pruned"]
    saved = Fraction(0)
    for length, reason in zip(lengths, reasons, strict=True):
        if whole and reason == "pruned":
            saved += max(Fraction(0), Fraction(sum(whole), len(whole)) - length)
    return saved

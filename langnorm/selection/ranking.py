"""The order of sampled responses to one prompt: scores, votes, and what to do about ties and unfinished ones.

Candidates are ranked in three tiers: those that ended by themselves, those that were cut off (at the token limit or by
a filter), and those that were stopped early. Only the first tier votes: an answer that was cut off may lack its last
digit.

Near-duplicates are a trap. Where most candidates agree, the arg-max of a score that knows nothing prefers the odd one
out, which is usually wrong. So candidates whose scores hardly differ are ordered by how many share their answer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from langnorm.scores.registry import score_all
from langnorm.scores.samples import Sample
from langnorm.scores.scaling import LENGTH_WARNING, deviation, length_correlation, standardised
from langnorm.selection.endings import is_cut_off, is_filtered

if TYPE_CHECKING:
    from langnorm.selection.options import Selection
    from langnorm.selection.stopping import Lead

_FEWEST_FOR_WARNING = 5  # of so few, one in three is in line with the lengths by chance


@dataclass(frozen=True, slots=True)
class Candidate:
    """One response.

    Attributes:
        sample: What scores see of it.
        answer: Its answer, equal for equal answers; None when none can be read.
        tokens: Number of generated tokens.
        finish_reason: `"stop"`, `"tool_calls"`, `"length"`, `"pruned"` for one that was stopped early, or what another
            model says, such as `"end_turn"` and `"MAX_TOKENS"`.
        key: Equal for responses that are the same, token by token. They share the scores of the first of them: in
            another place of a batch numbers are rounded otherwise, and that must not order them. None equals no other.
        text: What it says after its reasoning.
    """

    sample: Sample
    answer: str | None
    tokens: int
    finish_reason: str
    key: Hashable = None
    text: str = ""

    @property
    def tier(self) -> int:
        """0 for finished ones, 1 for those cut off, 2 for those stopped early."""
        if self.finish_reason == "pruned":
            return 2
        return int(is_cut_off(self.finish_reason))

    @property
    def vote(self) -> str | None:
        """The answer that it votes for, or None."""
        return self.answer if self.tier == 0 else None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates in order.

    Attributes:
        selection: By what they were ranked.
        candidates: In the order in which they were sampled.
        order: Their numbers, best first.
        scores: What they were ranked by; None for those that cannot be scored, and for those stopped early.
        parts: The scores that it is made of, by name.
        supports: How many candidates vote for the answer of each; 0 for those that do not vote themselves.
        settled: The answer that settled it before all were drawn, or None.
    """

    selection: Selection
    candidates: tuple[Candidate, ...]
    order: tuple[int, ...]
    scores: tuple[float | None, ...]
    parts: dict[str, list[float | None]]
    supports: tuple[int, ...]
    settled: Lead | None = None

    @property
    def best(self) -> int:
        """Number of the best candidate."""
        return self.order[0]

    @property
    def majority(self) -> str | None:
        """The answer with most votes; of several, the one whose best candidate ranks first. None without votes."""
        voting = [i for i in self.order if self.candidates[i].vote is not None]
        return self.candidates[max(voting, key=self.supports.__getitem__)].answer if voting else None

    @property
    def agreement(self) -> float | None:
        """Share of the votes that the best candidate's answer has, 0 to 1; None without votes.

        0 when others vote and the best one does not, as its answer cannot be read.
        """
        num_votes = sum(candidate.vote is not None for candidate in self.candidates)
        return self.supports[self.best] / num_votes if num_votes else None

    @property
    def length_correlation(self) -> float | None:
        """Spearman's rho between scores and lengths, or None where it says nothing."""
        return length_correlation(self.scores, [candidate.tokens for candidate in self.candidates])

    @property
    def num_cut_off(self) -> int:
        """How many candidates were cut off."""
        return sum(candidate.tier == 1 for candidate in self.candidates)

    @property
    def num_at_limit(self) -> int:
        """How many candidates ended at the token limit."""
        return self.num_cut_off - self._num_filtered

    @property
    def _num_filtered(self) -> int:
        return sum(is_filtered(candidate.finish_reason) for candidate in self.candidates)

    @property
    def num_without_answer(self) -> int:
        """How many of the candidates that ended have no answer that can be read."""
        return sum(candidate.tier == 0 and candidate.answer is None for candidate in self.candidates)

    @property
    def warnings(self) -> list[str]:
        """What to be wary of, a sentence or two each."""
        return list(filter(None, (self._of_cut_off(), self._of_answers(), self._of_equal_scores(), self._of_lengths())))

    def _of_cut_off(self) -> str | None:
        if not self.num_cut_off:
            return None
        by_filter = self._num_filtered
        said = f"{self.num_cut_off} of {len(self.candidates)} were cut off"
        if by_filter == self.num_cut_off:
            return f"{said} by a filter. They have no vote."
        also = f" ({by_filter} of them by a filter)" if by_filter else ""
        return f"{said} at max_tokens{also}. They have no vote: raise `max_tokens`."

    def _of_answers(self) -> str | None:
        if not self.num_without_answer:
            return None
        form = self.selection.to_dict()["answer"]
        return (
            f"{self.num_without_answer} of {len(self.candidates)} have no answer that `answer={form!r}` finds, "
            "and so no vote."
        )

    def _of_equal_scores(self) -> str | None:
        name = self.selection.to_dict()["score"]
        whole = [i for i, candidate in enumerate(self.candidates) if candidate.tier < 2]
        if name is None or len({self.candidates[i].key or self.candidates[i].text or i for i in whole}) < 2:
            return None
        scores = [self.scores[i] for i in whole]
        if None not in scores and any(standardised([_number(score) for score in scores])):
            return None
        if len({score is None for score in scores}) > 1:
            return None
        alike = "has no value for any of them" if scores[0] is None else f"is {scores[0]:.4g} for all of them"
        return (
            f"The score `{name}` does not tell the candidates apart: it {alike}. How many agree decides, and between "
            "equals the order in which they were sampled. Use another score."
        )

    def _of_lengths(self) -> str | None:
        rho, num_scored = self.length_correlation, sum(score is not None for score in self.scores)
        if rho is None or abs(rho) <= LENGTH_WARNING or num_scored < _FEWEST_FOR_WARNING:
            return None
        return (
            f"The scores follow the lengths of the responses (rank correlation {rho:+.2f}): they may say nothing else. "
            "Compare with another score, or let them vote."
        )

    @property
    def tokens_saved(self) -> int:
        """Tokens that those stopped early would have taken further, had each been as long as the mean of the others."""
        whole = [candidate.tokens for candidate in self.candidates if candidate.tier < 2]
        stopped = [candidate.tokens for candidate in self.candidates if candidate.tier == 2]
        expected = sum(whole) / len(whole) if whole else 0
        return round(sum(max(0.0, expected - tokens) for tokens in stopped))

    def to_dict(self) -> dict[str, Any]:
        """Return what a message carries of it: plain JSON types."""
        best = self.candidates[self.best]
        return {
            **self.selection.to_dict(),
            "chosen": self.best,
            "order": list(self.order),
            "agreement": self.agreement,
            "majority": self.majority,
            "agrees": None if self.majority is None else best.answer == self.majority,
            "length_correlation": self.length_correlation,
            "cut_off": self.num_cut_off,
            "without_answer": self.num_without_answer,
            "warnings": self.warnings,
            "tokens": sum(candidate.tokens for candidate in self.candidates),
            "tokens_saved": self.tokens_saved if self.selection.prune else None,
            "drawn": len(self.candidates),
            "samples_saved": self.selection.n - len(self.candidates) if self.selection.stop else None,
            "settled": None if self.settled is None else asdict(self.settled),
            "candidates": [
                {
                    "score": self.scores[i],
                    "scores": {name: values[i] for name, values in self.parts.items()},
                    "text": candidate.text,
                    "answer": candidate.answer,
                    "support": self.supports[i],
                    "tokens": candidate.tokens,
                    "finish_reason": candidate.finish_reason,
                }
                for i, candidate in enumerate(self.candidates)
            ],
        }


def rank_candidates(selection: Selection, candidates: Sequence[Candidate]) -> Ranking:
    """Return the candidates for one prompt in the order that the selection asks for.

    Raises:
        OptionError: A candidate lacks what the score reads.
    """
    whole = [i for i, candidate in enumerate(candidates) if candidate.tier < 2]
    first: dict[Hashable, Sample] = {}
    samples = [first.setdefault(candidates[i].key or i, candidates[i].sample) for i in whole]
    of_whole = score_all(selection.score, samples, selection.combine)

    def spread(values: Sequence[float | None]) -> list[float | None]:
        by_number = dict(zip(whole, values, strict=True))
        return [by_number.get(i) for i in range(len(candidates))]

    scores = spread(of_whole.scores)
    votes = Counter(candidate.vote for candidate in candidates)
    supports = [votes[candidate.vote] if candidate.vote is not None else 0 for candidate in candidates]
    order: list[int] = []
    for tier in range(3):
        of_tier = [i for i, candidate in enumerate(candidates) if candidate.tier == tier]
        order += by_score(of_tier, scores, supports, selection.near)
    return Ranking(
        selection=selection,
        candidates=tuple(candidates),
        order=tuple(by_vote(order, selection, [candidate.vote for candidate in candidates], scores)),
        scores=tuple(scores),
        parts={name: spread(values) for name, values in of_whole.parts.items()},
        supports=tuple(supports),
    )


def leading_answer(selection: Selection, candidates: Sequence[Candidate]) -> Lead | None:
    """Return the answer that leads among the candidates so far, by the rule of `stop`; None without votes.

    The weight of a candidate under `"confidence"` is exp(z), z being its score standardised over the candidates that
    have one; one without a score weighs 1, as the mean does.

    Raises:
        OptionError: A candidate lacks what the score reads.
    """
    assert selection.stopping, "only a selection with a rule for it stops"
    weights = [1.0] * len(candidates)
    if selection.stop == "confidence":
        scores = rank_candidates(selection, candidates).scores
        scored = [i for i, score in enumerate(scores) if score is not None]
        for i, z in zip(scored, standardised([_number(scores[i]) for i in scored]), strict=True):
            weights[i] = math.exp(z)
    return selection.stopping.lead([candidate.vote for candidate in candidates], weights)


def settled_ranking(ranking: Ranking) -> Ranking:
    """Return the ranking of candidates that were drawn by the rule of `stop`.

    Where that has ended the draw before all n were there, those with its answer are ahead, in their order.
    """
    selection, candidates = ranking.selection, ranking.candidates
    if not selection.stop or len(candidates) >= selection.n:
        return ranking
    lead = leading_answer(selection, candidates)
    if lead is None:  # a user's own way to read answers said otherwise when the draw ended
        return ranking
    order = sorted(ranking.order, key=lambda i: candidates[i].vote != lead.answer)
    return replace(ranking, order=tuple(order), settled=lead)


def by_score(
    numbers: Sequence[int], scores: Sequence[float | None], supports: Sequence[int], near: float = 0.0
) -> list[int]:
    """Return some candidates, best score first; those without a score come last, by support, of equals the first.

    The best of those that are left and all that are no more than `near` standard deviations below it are as good as
    tied: of them the one with most support comes next; of several, the one with the higher score; of several, the
    first. The standard deviation is that of all scores of these candidates (of the population).
    """
    scored = sorted((i for i in numbers if scores[i] is not None), key=lambda i: -_number(scores[i]))
    margin = near * deviation([_number(scores[i]) for i in scored]) if scored else 0.0
    ordered = []
    while scored:
        tied = [i for i in scored if _number(scores[scored[0]]) - _number(scores[i]) <= margin]
        following = max(tied, key=lambda i: (supports[i], _number(scores[i]), -i))
        ordered.append(following)
        scored.remove(following)
    return ordered + sorted((i for i in numbers if scores[i] is None), key=lambda i: (-supports[i], i))


def by_vote(
    order: Sequence[int], selection: Selection, votes: Sequence[str | None], scores: Sequence[float | None]
) -> list[int]:
    """Return candidates that are in the order of their scores in that of their answers' votes; a stable sort.

    Of answers with equally many votes, the one whose best candidate ranks first is ahead. Those whose votes do not
    count (see `Selection`) stand with the others of their answer. Candidates without a vote follow in their order.
    """
    voting = [i for i in order if votes[i] is not None]
    if selection.vote == "none" or not voting:
        return list(order)
    weights = dict.fromkeys(voting, 1.0)
    if selection.vote == "filtered":
        counted = set(voting[: math.ceil(round(selection.keep * len(voting), 9))])  # rounded: 0.28 * 25 is more than 7
        weights = {i: float(i in counted) for i in voting}
    elif selection.vote == "weighted":
        scored = [i for i in voting if scores[i] is not None]
        zs = dict(zip(scored, standardised([_number(scores[i]) for i in scored]), strict=True))
        # One that cannot be scored has no weight, unless none can be.
        weights = {i: math.exp(zs[i]) if i in zs else float(not zs) for i in voting}
    totals: dict[str | None, float] = {}
    first: dict[str | None, int] = {}
    for place, i in enumerate(voting):
        totals[votes[i]] = totals.get(votes[i], 0.0) + weights[i]
        first.setdefault(votes[i], place)
    # Rounded, because sums of the same weights in another order differ.
    elected = sorted(voting, key=lambda i: (-round(totals[votes[i]], 9), first[votes[i]]))
    return elected + [i for i in order if votes[i] is None]


def _number(score: float | None) -> float:
    assert score is not None
    return score

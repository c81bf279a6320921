"""When a selection has drawn enough samples: decisions on their answers alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal, get_args

from langnorm.checks import check_choice, check_integer, check_number, refuse

StopRule = Literal["unanimous", "beta", "confidence"]
STOP_RULES: tuple[str, ...] = get_args(StopRule)

DEFAULT_WINDOW = 5
"""Samples drawn between two decisions, as in ESC."""

_STOP_ABOVE: dict[str, float] = {"beta": 0.95, "confidence": 0.95}  # the first is Adaptive-Consistency's


@dataclass(frozen=True, slots=True)
class Lead:
    """The answer that leads among the samples so far.

    Attributes:
        answer: It.
        value: How clearly it leads, 0 to 1; what that is depends on the rule.
    """

    answer: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """When no more samples are drawn. An answer that cannot be read agrees with no other.

    Attributes:
        rule: `"unanimous"` stops when all samples of a window have the same answer (ESC, arXiv 2401.10480). `"beta"`
            stops when the most frequent answer is the more frequent one of the first two for the model too, with a
            probability above `above` (Adaptive-Consistency, arXiv 2305.11860). `"confidence"` stops when the share of
            the leading answer in count times score mass is above it; see `by_confidence`.
        window: Samples drawn between two decisions.
        above: See `rule`, above 0 and below 1; None for 0.95. `"unanimous"` has none.

    Raises:
        OptionError: A value is not allowed.
    """

    rule: StopRule
    window: int = DEFAULT_WINDOW
    above: float | None = None

    def __post_init__(self) -> None:
        check_choice("stop", self.rule, STOP_RULES)
        if self.rule == "beta":
            check_integer("window", self.window, low=1, allowed="1 or above")
        else:
            allowed = f'2 or above with `stop="{self.rule}"`, as a single sample agrees with itself'
            check_integer("window", self.window, low=2, allowed=allowed)
        if self.above is None:
            return
        if self.rule not in _STOP_ABOVE:
            words = " or ".join(f'"{rule}"' for rule in _STOP_ABOVE)
            refuse("stop_above", self.above, f'None with `stop="{self.rule}"`, which has no threshold, or {words}')
        check_number("stop_above", self.above, low=0, high=1, is_low_open=True, is_high_open=True)

    def lead(self, votes: Sequence[str | None], weights: Sequence[float] = ()) -> Lead | None:
        """Return the answer that leads, or None where no answer can be read.

        Args:
            votes: The answer of each sample in the order of sampling; None for one that cannot be read.
            weights: Of each sample above 0; only `"confidence"` reads them.
        """
        if self.rule == "unanimous":
            return by_window(votes, self.window)
        return by_beta(votes) if self.rule == "beta" else by_confidence(votes, weights)

    def is_enough(self, lead: Lead | None) -> bool:
        """Return whether no more samples are needed after those whose leading answer is this."""
        if lead is None:
            return False
        return lead.value == 1 if self.rule == "unanimous" else lead.value > (self.above or _STOP_ABOVE[self.rule])


def by_window(votes: Sequence[str | None], window: int) -> Lead | None:
    """Return the most frequent answer of the last `window` samples, and its share in them."""
    last = votes[-window:]
    counts = Counter(vote for vote in last if vote is not None)
    if not counts:
        return None
    answer, count = counts.most_common(1)[0]
    return Lead(answer, count / len(last))


def by_beta(votes: Sequence[str | None]) -> Lead | None:
    """Return the most frequent answer, of several the first, and the probability that it leads the second.

    With v and w the counts of the first two, it is the mass above 1/2 of Beta(v + 1, w + 1): the share of the first in
    the two, after these draws and with every share equally likely before. For whole numbers that mass is the chance of
    no more than v heads in v + w + 1 throws of a coin, which is summed up exactly.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return None
    (answer, first), *others = counts.most_common(2)
    second = others[0][1] if others else int(None in votes)
    num_throws = first + second + 1
    return Lead(answer, sum(comb(num_throws, heads) for heads in range(first + 1)) / 2**num_throws)


def by_confidence(votes: Sequence[str | None], weights: Sequence[float]) -> Lead | None:
    """Return the answer with the largest mass, of several the first, and its share in all masses.

    The mass of an answer is the number of its samples times the sum of their weights: an answer leads by how many give
    it and by how good they are. A sample whose answer cannot be read is an answer of its own.
    """
    counts: Counter[str] = Counter()
    sums: defaultdict[str, float] = defaultdict(float)
    unread = 0.0
    for vote, weight in zip(votes, weights, strict=True):
        if vote is None:
            unread += weight
        else:
            counts[vote] += 1
            sums[vote] += weight
    if not counts:
        return None
    masses = {answer: counts[answer] * sums[answer] for answer in counts}
    answer = max(masses, key=masses.__getitem__)
    return Lead(answer, masses[answer] / (sum(masses.values()) + unread))

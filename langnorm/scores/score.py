"""What a score is: a function of a response, and what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from langnorm.scores.samples import Sample, is_finite

ScoreFunction = Callable[[Sample], ArrayLike | None]
"""Takes a response and returns a number, L numbers (one per layer), or None when it cannot be scored."""

GroupFunction = Callable[[Sequence[Sample]], Sequence[float | None]]
"""Takes all responses to a prompt that can be scored, and returns a number for each, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A score and what it asks for.

    Attributes:
        name: Its name in `SCORES`.
        function: Computes it, of a response or, where it compares them with each other, of all of them at once.
        summary: One line for listings.
        needs_norms: Whether a response without a row cannot be scored.
        needs_thresholds: Whether it compares norms with thresholds.
        needs_logprobs: Whether it reads log-probabilities.
        needs_texts: Whether it reads the texts of tokens.
        needs_relative_norms: Whether it reads norms relative to the usual ones of the same tokens.
        needs_distribution: Whether it reads what was kept of the distributions of tokens.
        needs_lens: Whether it reads how late in the stack tokens settled.
        needs_updates: Whether it reads what layers add to hidden states.
        needs_mean_states: Whether it reads the means of hidden states.
        compares_responses: Whether `function` takes all responses at once.
        is_length_robust: Whether its expectation is the same for short and long responses of the same kind of tokens.
    """

    name: str
    function: Callable[[Any], Any]
    summary: str = ""
    needs_norms: bool = True
    needs_thresholds: bool = False
    needs_logprobs: bool = False
    needs_texts: bool = False
    needs_relative_norms: bool = False
    needs_distribution: bool = False
    needs_lens: bool = False
    needs_updates: bool = False
    needs_mean_states: bool = False
    compares_responses: bool = False
    is_length_robust: bool = False

    @property
    def says_what_it_reads(self) -> bool:
        """Whether it names something that it reads beside norms."""
        of_tokens = self.needs_logprobs or self.needs_texts or self.needs_relative_norms or self.needs_thresholds
        return of_tokens or self.needs_reductions

    @property
    def needs_reductions(self) -> bool:
        """Whether it reads what messages do not carry."""
        return self.needs_distribution or self.needs_lens or self.needs_updates or self.needs_mean_states

    def can_read(self, sample: Sample) -> bool:
        """Return whether a response has what it reads, all of it finite.

        Raises:
            OptionError: Something that it needs was not recorded.
        """
        needed = [sample.rows] if self.needs_norms else []
        needed += [sample.tau] if self.needs_thresholds else []
        needed += [sample.relative_rows] if self.needs_relative_norms else []
        needed += [sample.token_logprobs] if self.needs_logprobs else []
        needed += [sample.distribution.self_certainty] if self.needs_distribution else []
        needed += [sample.lens.settling] if self.needs_lens else []
        needed += [sample.update_rows("norms")] if self.needs_updates else []
        needed += [sample.mean_states] if self.needs_mean_states else []
        return all(values.size and is_finite(values) for values in needed)

"""The best of a call's completions, by its selection."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

from langnorm.chat.candidates import CandidateReader
from langnorm.chat.traces import num_reasoning_tokens
from langnorm.engines.requests import Completion, Response
from langnorm.selection.ranking import rank_candidates, settled_ranking
from langnorm.text.readers import ParsedAnswer

_MOSTLY_CUT_OFF = (
    "{} of {} samples of a selection ended at `max_tokens`: what was chosen says little. Raise `max_tokens`, so that "
    "most of them end by themselves."
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A completion that was chosen, and what its message says of all that were sampled with it.

    Attributes:
        completion: The chosen one.
        answer: Its text, told apart into reasoning, answer and calls.
        ranking: In plain JSON types.
        tokens: Number of tokens of all of them.
        reasoning_tokens: How many of these came before the answers.
    """

    completion: Completion
    answer: ParsedAnswer
    ranking: dict[str, Any]
    tokens: int
    reasoning_tokens: int


def choose_completion(reader: CandidateReader, response: Response) -> Choice:
    """Return the completion that the selection prefers."""
    read = [reader.read(completion) for completion in response.completions]
    candidates = reader.compared([candidate for candidate, _ in read], response.completions)
    ranking = settled_ranking(rank_candidates(reader.selection, candidates))
    if ranking.num_at_limit * 2 > len(candidates):
        warnings.warn(_MOSTLY_CUT_OFF.format(ranking.num_at_limit, len(candidates)), stacklevel=2)
    completion = response.completions[ranking.best]
    return Choice(
        # Where later samples found the prompt, the first of this call have put it.
        completion=replace(completion, prefix_hit=response.completions[0].prefix_hit),
        answer=read[ranking.best][1],
        ranking=ranking.to_dict(),
        tokens=sum(candidate.tokens for candidate in candidates),
        reasoning_tokens=sum(num_reasoning_tokens(answer.segments, candidate.tokens) for candidate, answer in read),
    )

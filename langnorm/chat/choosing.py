"""The best of a call's completions, by its selection."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from langnorm.chat.preparing import PreparedCall
from langnorm.chat.traces import build_message_trace, num_reasoning_tokens
from langnorm.engines.requests import Completion, Response
from langnorm.scores.samples import Sample, sample_of
from langnorm.selection.answers import read_answer
from langnorm.selection.options import Selection
from langnorm.selection.ranking import Candidate, rank_candidates
from langnorm.text.readers import ParsedAnswer, parse_answer

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


def choose_completion(call: PreparedCall, selection: Selection, response: Response) -> Choice:
    """Return the completion that the selection prefers."""
    answers = [parse_answer(call.new_reader(), completion.pieces) for completion in response.completions]
    candidates = [
        _build_candidate(call, selection, completion, answer)
        for completion, answer in zip(response.completions, answers, strict=True)
    ]
    ranking = rank_candidates(selection, candidates)
    if ranking.num_at_limit * 2 > len(candidates):
        warnings.warn(_MOSTLY_CUT_OFF.format(ranking.num_at_limit, len(candidates)), stacklevel=2)
    return Choice(
        completion=response.completions[ranking.best],
        answer=answers[ranking.best],
        ranking=ranking.to_dict(),
        tokens=sum(candidate.tokens for candidate in candidates),
        reasoning_tokens=sum(
            num_reasoning_tokens(answer.segments, candidate.tokens)
            for answer, candidate in zip(answers, candidates, strict=True)
        ),
    )


def _build_candidate(
    call: PreparedCall, selection: Selection, completion: Completion, answer: ParsedAnswer
) -> Candidate:
    logprobs = [token.logprob for token in completion.logprobs] or None
    if call.recording and call.recording.in_scores:
        trace = build_message_trace(completion, answer.segments, call.recording, keep_tokens=True)
        sample = sample_of(trace, logprobs, completion.pieces, completion.reductions)
    else:
        sample = Sample((), (), logprobs=logprobs, texts=completion.pieces, reductions=completion.reductions)
    calls = [{"name": tool.name, "args": tool.arguments} for tool in answer.calls if tool.error is None]
    return Candidate(
        sample=sample,
        answer=read_answer(selection.answer, answer.text("answer"), calls),
        tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason,
        key=tuple(completion.token_ids),
        text=answer.text("answer"),
    )

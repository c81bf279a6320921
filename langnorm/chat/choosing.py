"""The best of a call's completions, by its selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from langnorm.chat.preparing import PreparedCall
from langnorm.chat.traces import build_message_trace, num_reasoning_tokens
from langnorm.engines.requests import Completion, Response
from langnorm.norms.relative import AnswerNorms, relative_norms
from langnorm.scores.samples import Sample, sample_of
from langnorm.selection.answers import read_answer
from langnorm.selection.options import Selection
from langnorm.selection.ranking import Candidate, rank_candidates
from langnorm.text.readers import ParsedAnswer, parse_answer


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
    samples = _build_samples(call, selection, response, answers)
    candidates = [
        _build_candidate(selection, completion, answer, sample)
        for completion, answer, sample in zip(response.completions, answers, samples, strict=True)
    ]
    ranking = rank_candidates(selection, candidates)
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


def _build_samples(
    call: PreparedCall, selection: Selection, response: Response, answers: Sequence[ParsedAnswer]
) -> list[Sample]:
    """Return what scores see of the completions."""
    samples, recording = [], call.recording
    for completion, answer in zip(response.completions, answers, strict=True):
        logprobs = [token.logprob for token in completion.logprobs] or None
        if recording and recording.in_scores:
            trace = build_message_trace(completion, answer.segments, recording, keep_tokens=True)
            sample = sample_of(trace, logprobs, completion.pieces, completion.reductions)
        else:
            sample = Sample((), (), logprobs=logprobs, texts=completion.pieces, reductions=completion.reductions)
        samples.append(sample)
    if not (recording and recording.in_scores and selection.needs_relative_norms):
        return samples
    norms = [
        AnswerNorms(completion.token_ids, completion.norms, sample.sinks)
        for completion, sample in zip(response.completions, samples, strict=True)
    ]
    relative = relative_norms(norms, recording.layers, recording.baseline)
    return [replace(sample, relative_norms=rows) for sample, rows in zip(samples, relative, strict=True)]


def _build_candidate(selection: Selection, completion: Completion, answer: ParsedAnswer, sample: Sample) -> Candidate:
    calls = [{"name": tool.name, "args": tool.arguments} for tool in answer.calls if tool.error is None]
    return Candidate(
        sample=sample,
        answer=read_answer(selection.answer, answer.text("answer"), calls),
        tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason,
        key=tuple(completion.token_ids),
        text=answer.text("answer"),
    )

"""Completions as a selection sees them, and when there are enough of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from langnorm.chat.recording import Recording
from langnorm.chat.traces import build_message_trace
from langnorm.engines.requests import Completion
from langnorm.scores.samples import Sample, sample_of, with_relative_norms
from langnorm.selection.answers import read_answer
from langnorm.selection.options import Selection
from langnorm.selection.ranking import Candidate, leading_answer
from langnorm.text.readers import ParsedAnswer, Reader, parse_answer


@dataclass(frozen=True, slots=True)
class CandidateReader:
    """Reads the completions of a call that selects.

    Attributes:
        selection: How it selects.
        recording: The norms of the call, or None where nobody reads any.
        new_reader: Returns a reader of one answer.
    """

    selection: Selection
    recording: Recording | None
    new_reader: Callable[[], Reader]

    def read(self, completion: Completion) -> tuple[Candidate, ParsedAnswer]:
        """Return a completion as it is ranked, and its text, told apart into reasoning, answer and calls."""
        answer = parse_answer(self.new_reader(), completion.pieces)
        logprobs = [token.logprob for token in completion.logprobs] or None
        if self.recording and self.recording.in_scores:
            trace = build_message_trace(completion, answer.segments, self.recording, keep_tokens=True)
            sample = sample_of(trace, logprobs, completion.pieces, completion.reductions)
        else:
            sample = Sample(
                norms=(),
                layers=(),
                logprobs=logprobs,
                texts=completion.pieces,
                reductions=completion.reductions,
                num_tokens=len(completion.token_ids),
            )
        calls = [{"name": tool.name, "args": tool.arguments} for tool in answer.calls if tool.error is None]
        candidate = Candidate(
            sample=sample,
            answer=read_answer(self.selection.answer, answer.text("answer"), calls),
            tokens=len(completion.token_ids),
            finish_reason=completion.finish_reason,
            key=tuple(completion.token_ids),
            text=answer.text("answer"),
        )
        return candidate, answer

    def compared(self, candidates: list[Candidate], completions: Sequence[Completion]) -> list[Candidate]:
        """Return the candidates with what only all of them together tell: norms relative to the usual ones of tokens.

        Args:
            candidates: As `read` returns them.
            completions: What they were read from, in the same order.
        """
        recording = self.recording
        if not (recording and recording.in_scores and self.selection.needs_relative_norms):
            return candidates
        ids = [completion.token_ids for completion in completions]
        samples = with_relative_norms([each.sample for each in candidates], ids, recording.layers, recording.baseline)
        return [replace(each, sample=sample) for each, sample in zip(candidates, samples, strict=True)]


class AnswerWindows:
    """Ends the draw of samples by the rule of a selection: what a request calls its windows.

    Args:
        reader: Of the completions; its selection has a rule for it.
    """

    def __init__(self, reader: CandidateReader) -> None:
        assert reader.selection.stopping, "only a selection with a rule for it has windows"
        self._reader = reader
        self._stopping = reader.selection.stopping
        self._read: list[tuple[Completion, Candidate]] = []  # so far: no completion is read twice

    @property
    def size(self) -> int:
        """Number of samples that are drawn together."""
        return self._stopping.window

    def is_enough(self, completions: Sequence[Completion]) -> bool:
        """Return whether the samples so far settle the answer."""
        known = {id(completion): candidate for completion, candidate in self._read}
        self._read = [(each, known.get(id(each)) or self._reader.read(each)[0]) for each in completions]
        candidates = self._reader.compared([candidate for _, candidate in self._read], completions)
        return self._stopping.is_enough(leading_answer(self._reader.selection, candidates))

"""Follows the rows of a batch while `generate` runs: streams their text and stops each at its own end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import torch
from transformers import StoppingCriteria

from langnorm.engines.requests import Completion, Delta, FinishReason, Partial
from langnorm.text.detokenizer import Detokenizer, decode_pieces

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.transformers.intervening import Intervener
    from langnorm.engines.transformers.logprobs import LogprobRecorder
    from langnorm.engines.transformers.sample_group import SampleGroup
    from langnorm.engines.transformers.sequence import PendingSequence


class SequenceTracker(StoppingCriteria):
    """Stops rows at their own limit, at a stop text or when cancelled; `generate` itself stops at end tokens.

    Args:
        rows: The rows of the batch.
        limits: Most tokens of each row.
        tokenizer: For rows whose text matters before the end.
        end_ids: Tokens that end a sequence.
        norms_of: Returns the norms of a row that has just ended, given its number and its number of tokens.
        on_prefilled: Called when the prompt has been run and nothing else.
        intervener: What acts on the rows, if anything does.
        logprobs: What keeps their log-probabilities, if any row asks for them.
    """

    def __init__(
        self,
        rows: Sequence[PendingSequence],
        limits: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Collection[int],
        norms_of: Callable[[int, int], list[list[float]]],
        on_prefilled: Callable[[], None],
        intervener: Intervener | None = None,
        logprobs: LogprobRecorder | None = None,
    ) -> None:
        self._rows = rows
        self._limits = limits
        self._tokenizer = tokenizer
        self._end_ids = frozenset(end_ids)
        self._norms_of = norms_of
        self._on_prefilled = on_prefilled
        self._intervener = intervener
        self._logprobs = logprobs
        self._has_ended: Tensor | None = None
        self._ends: Tensor | None = None  # `_end_ids`, where the tokens are
        # Only these need their tokens on the host at every step.
        self._followed = {
            number: Detokenizer(tokenizer, row.request.sampling.stop)
            for number, row in enumerate(rows)
            if row.sink or row.request.sampling.stop
        }
        self._ids: dict[int, list[int]] = {number: [] for number in self._followed}
        self._completions: dict[int, Completion] = {}
        self._is_done = [False] * len(rows)
        self._done: Tensor | None = None
        self._num_tokens = 0
        self._families: dict[SampleGroup, list[int]] = {}  # numbers of the rows of each request that is pruned
        for number, row in enumerate(rows):
            if row.sample_group:
                self._families.setdefault(row.sample_group, []).append(number)
        self._pruned: dict[int, int] = {}  # tokens that a row had when it was stopped

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: object) -> Tensor:  # noqa: ARG002
        """Return which rows are done, as booleans (B,)."""
        if self._num_tokens == 0:
            self._on_prefilled()
        self._num_tokens += 1
        if self._logprobs:
            self._logprobs.choose(input_ids[:, -1])
        before = sum(self._is_done)
        for number, row in enumerate(self._rows):
            if row.is_cancelled or self._num_tokens >= self._limits[number]:
                self._is_done[number] = True
        for sample_group, numbers in self._families.items():
            if sample_group.is_due(self._num_tokens):
                self._prune(sample_group, numbers, input_ids[numbers, -self._num_tokens :].tolist())
        if self._followed:
            numbers = list(self._followed)
            for number, token_id in zip(numbers, input_ids[numbers, -1].tolist(), strict=True):
                self._follow(number, token_id)
        if self._done is None or sum(self._is_done) != before:
            self._done = torch.tensor(self._is_done, device=input_ids.device)
        if self._intervener:
            self._note_ended(input_ids[:, -1], self._done)
        return self._done

    def _prune(self, sample_group: SampleGroup, numbers: Sequence[int], generated: Sequence[Sequence[int]]) -> None:
        """Stop those of a request's rows that its pruner is done with."""
        samples = {}
        for number, ids in zip(numbers, generated, strict=True):
            if number not in self._pruned:
                end = next((i + 1 for i, token_id in enumerate(ids) if token_id in self._end_ids), None)
                known = self._completions.get(number)
                length = len(known.token_ids) if known else min(end or len(ids), self._limits[number])
                logprobs = self._logprobs.of(number, length) if self._logprobs else []
                samples[self._rows[number].sample] = Partial(
                    token_ids=ids[:length],
                    norms=self._norms_of(number, length),
                    logprobs=[token.logprob for token in logprobs],
                    is_running=end is None and not self._is_done[number],
                )
        stopped = set(sample_group.stopped(samples))
        for number in numbers:
            if self._rows[number].sample in stopped:
                self._pruned[number] = self._num_tokens
                self._is_done[number] = True

    def _note_ended(self, last_ids: Tensor, done: Tensor) -> None:
        assert self._intervener
        if self._ends is None:
            self._ends = torch.tensor(sorted(self._end_ids), device=last_ids.device)
        has_ended = done | torch.isin(last_ids, self._ends)
        self._has_ended = has_ended if self._has_ended is None else self._has_ended | has_ended
        self._intervener.next_step(self._has_ended)

    def _completion(self, number: int, ids: list[int], pieces: list[str], reason: FinishReason) -> Completion:
        done = self._intervener.report(number, len(ids) - 1) if self._intervener else {}
        logprobs = self._logprobs.of(number, len(ids)) if self._logprobs else []
        return Completion(ids, pieces, reason, self._norms_of(number, len(ids)), done, logprobs)

    def _follow(self, number: int, token_id: int) -> None:
        text, ids = self._followed[number], self._ids[number]
        ids.append(token_id)
        text.add(token_id)
        reason: FinishReason | None = None
        if token_id in self._end_ids or text.is_stopped:
            reason = "stop"
        elif self._is_done[number]:
            reason = "pruned" if number in self._pruned else "length"
        row = self._rows[number]
        if reason:
            self._is_done[number] = True
            text.finish()
            completion = self._completion(number, ids, text.pieces, reason)
            self._completions[number] = completion
            del self._followed[number]
            if row.sink:
                row.send(Delta(tuple(text.take(is_last=True)), completion))
        elif row.sink and (taken := text.take()):
            row.send(Delta(tuple(taken)))

    def completion(self, number: int, generated: Sequence[int]) -> Completion:
        """Return the completion of a row, given all that `generate` returned for it, padding included."""
        if number in self._completions:
            return self._completions[number]
        ids = list(generated[: self._pruned.get(number, self._limits[number])])
        end = next((i for i, token_id in enumerate(ids) if token_id in self._end_ids), None)
        if end is not None:
            ids = ids[: end + 1]
        reason: FinishReason = "stop"
        if end is None:
            reason = "pruned" if number in self._pruned else "length"
        return self._completion(number, ids, decode_pieces(self._tokenizer, ids), reason)

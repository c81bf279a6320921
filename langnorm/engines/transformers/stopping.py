"""Follows the sequences of a batch while `generate` runs: streams their text and stops each at its own end."""

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

    from langnorm.engines.sample_group import SampleGroup
    from langnorm.engines.sequence import PendingSequence
    from langnorm.engines.token_choice.logprobs import LogprobRecorder
    from langnorm.engines.transformers.intervening import Intervener
    from langnorm.engines.transformers.state_reducer import StateReducer
    from langnorm.reductions import Reductions


class SequenceTracker(StoppingCriteria):
    """Stops sequences at their own limit, at a stop text or when cancelled; `generate` itself stops at end tokens.

    Args:
        sequences: The sequences of the batch.
        limits: Most tokens of each sequence.
        tokenizer: For sequences whose text matters before the end.
        end_ids: Tokens that end a sequence.
        get_norms: Returns the norms of a sequence, given its index in the batch, its number of tokens, and from which
            token on (0 where it is left out).
        get_reductions: Returns what else was reduced of it, likewise.
        add_states: Returns a sequence's completion with what else is known of it, given its index in the batch.
        on_prefilled: Called when the prompt has been run and nothing else.
        intervener: What acts on the sequences, if anything does.
        logprobs: What records their log-probabilities, if any sequence asks for them.
        reducer: What reduces their states, likewise.
    """

    def __init__(
        self,
        sequences: Sequence[PendingSequence],
        limits: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Collection[int],
        get_norms: Callable[..., list[list[float]]],
        get_reductions: Callable[[int, int], Reductions],
        add_states: Callable[[int, Completion], Completion],
        on_prefilled: Callable[[], None],
        intervener: Intervener | None = None,
        logprobs: LogprobRecorder | None = None,
        reducer: StateReducer | None = None,
    ) -> None:
        self._sequences = sequences
        self._limits = limits
        self._tokenizer = tokenizer
        self._end_ids = frozenset(end_ids)
        self._get_norms = get_norms
        self._get_reductions = get_reductions
        self._add_states = add_states
        self._on_prefilled = on_prefilled
        self._intervener = intervener
        self._logprobs = logprobs
        self._reducer = reducer
        self._num_tokens = 0  # that every sequence has, padding after its end included
        # By index in the batch, for sequences that are streamed or have stop texts and go on. Only these need their
        # tokens on the host at every step.
        self._detokenizers = {
            index: Detokenizer(tokenizer, sequence.request.sampling.stop)
            for index, sequence in enumerate(sequences)
            if sequence.sink or sequence.request.sampling.stop
        }
        self._token_ids: dict[int, list[int]] = {index: [] for index in self._detokenizers}
        self._num_rows_sent = dict.fromkeys(self._detokenizers, 0)
        self._completions: dict[int, Completion] = {}  # of those that have ended
        self._is_done = [False] * len(sequences)  # end tokens aside
        self._done_mask: Tensor | None = None  # the same (B,), on the device
        self._has_ended = [False] * len(sequences)  # with end tokens; for the intervener only
        self._sample_groups: dict[SampleGroup, list[int]] = {}  # indices of the samples of each request that is pruned
        for index, sequence in enumerate(sequences):
            if sequence.sample_group:
                self._sample_groups.setdefault(sequence.sample_group, []).append(index)
        self._cut_lengths: dict[int, int] = {}  # tokens that a sequence had when it was pruned or cancelled

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: object) -> Tensor:  # noqa: ARG002
        """Return which sequences are done, as booleans (B,)."""
        if self._num_tokens == 0:
            self._on_prefilled()
        self._num_tokens += 1
        if self._logprobs:
            self._logprobs.add_chosen(input_ids[:, -1])
        num_done_before = sum(self._is_done)
        for index, sequence in enumerate(self._sequences):
            if self._is_done[index]:
                continue
            if sequence.is_cancelled:
                self._cut_lengths[index] = self._num_tokens  # padding follows, of which nothing is to be learnt
            self._is_done[index] = sequence.is_cancelled or self._num_tokens >= self._limits[index]
        for sample_group, indices in self._sample_groups.items():
            if sample_group.is_due(self._num_tokens):
                self._prune(sample_group, indices, input_ids[indices, -self._num_tokens :].tolist())
        if self._detokenizers:
            indices = list(self._detokenizers)
            for index, token_id in zip(indices, input_ids[indices, -1].tolist(), strict=True):
                self._add_token(index, token_id)
        if self._done_mask is None or sum(self._is_done) != num_done_before:
            self._done_mask = torch.tensor(self._is_done, device=input_ids.device)
        if self._reducer:
            self._reducer.next_step(input_ids[:, -1], self._done_mask)
        if self._intervener:
            self._note_ended(self._intervener, input_ids[:, -1].tolist())
        return self._done_mask

    def build_completion(self, index: int, generated: Sequence[int]) -> Completion:
        """Return the completion of a sequence, given all that `generate` returned for it, padding included."""
        if index in self._completions:
            return self._completions[index]
        ids = list(generated[: self._cut_lengths.get(index, self._limits[index])])
        end = next((i for i, token_id in enumerate(ids) if token_id in self._end_ids), None)
        if end is not None:
            ids = ids[: end + 1]
        reason: FinishReason = "stop"
        if end is None:
            reason = "pruned" if index in self._cut_lengths else "length"
        return self._complete(index, ids, decode_pieces(self._tokenizer, ids), reason)

    def _complete(self, index: int, ids: list[int], pieces: list[str], reason: FinishReason) -> Completion:
        report = self._intervener.report(index, len(ids) - 1) if self._intervener else {}
        logprobs = self._logprobs.get(index, len(ids)) if self._logprobs else []
        norms, reductions = self._get_norms(index, len(ids)), self._get_reductions(index, len(ids))
        completion = Completion(ids, pieces, reason, norms, report, logprobs, reductions=reductions)
        return self._add_states(index, completion)

    def _add_token(self, index: int, token_id: int) -> None:
        """Follow the text of a sequence by one token; end the sequence where its text, or its tokens, end it."""
        detokenizer, ids = self._detokenizers[index], self._token_ids[index]
        ids.append(token_id)
        detokenizer.add(token_id)
        reason: FinishReason | None = None
        if token_id in self._end_ids or detokenizer.is_stopped:
            reason = "stop"
        elif self._is_done[index]:
            reason = "pruned" if index in self._cut_lengths else "length"
        sequence = self._sequences[index]
        if reason:
            self._is_done[index] = True
            detokenizer.finish()
            completion = self._complete(index, ids, detokenizer.pieces, reason)
            self._completions[index] = completion
            del self._detokenizers[index]
            if sequence.sink:
                sequence.send(Delta(tuple(detokenizer.take(is_last=True)), completion))
        elif sequence.sink and (new_text := detokenizer.take()):
            sequence.send(Delta(tuple(new_text), norms=self._new_norms(index)))

    def _new_norms(self, index: int) -> tuple[tuple[int, list[float]], ...]:
        """Return the ids and norms of a streamed sequence that it has not sent yet, where its request asks for them."""
        if not self._sequences[index].request.streams_norms:
            return ()
        ids, start = self._token_ids[index], self._num_rows_sent[index]
        rows = self._get_norms(index, len(ids), start)
        self._num_rows_sent[index] += len(rows)
        return tuple(zip(ids[start:], rows, strict=False))  # the last token has not been run yet

    def _prune(self, sample_group: SampleGroup, indices: Sequence[int], generated: Sequence[Sequence[int]]) -> None:
        """Stop those samples of a request that its pruner chooses.

        Args:
            sample_group: All samples of the request.
            indices: Of its samples in this batch.
            generated: What each of these has generated, padding after its end included.
        """
        samples = {}
        for index, ids in zip(indices, generated, strict=True):
            if index in self._cut_lengths:
                continue
            end = next((i + 1 for i, token_id in enumerate(ids) if token_id in self._end_ids), None)
            completion = self._completions.get(index)
            length = len(completion.token_ids) if completion else min(end or len(ids), self._limits[index])
            logprobs = self._logprobs.get(index, length) if self._logprobs else []
            samples[self._sequences[index].sample] = Partial(
                token_ids=ids[:length],
                norms=self._get_norms(index, length),
                logprobs=[token.logprob for token in logprobs],
                is_running=end is None and not self._is_done[index],
                reductions=self._get_reductions(index, length),
            )
        stopped = set(sample_group.stopped(samples))
        for index in indices:
            if self._sequences[index].sample in stopped:
                self._cut_lengths[index] = self._num_tokens
                self._is_done[index] = True

    def _note_ended(self, intervener: Intervener, last_ids: list[int]) -> None:
        """Tell the intervener which sequences have ended, by an end token or otherwise.

        Args:
            intervener: What acts on the sequences.
            last_ids: The last token of each.
        """
        for index, token_id in enumerate(last_ids):
            if self._is_done[index] or token_id in self._end_ids:
                self._has_ended[index] = True
        intervener.next_step(self._has_ended)

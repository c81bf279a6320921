"""One sequence while llama.cpp generates it: its tokens, how the next one is chosen, what was seen of its states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.llamacpp.reducing import SequenceReducer
from langnorm.engines.requests import Completion, Delta, FinishReason, Partial, PrefixHit
from langnorm.engines.token_choice.grammar_mask import GrammarMask
from langnorm.engines.token_choice.logprobs import LogprobRecorder
from langnorm.engines.token_choice.token_sampler import TokenSampler
from langnorm.reductions import Reductions
from langnorm.text.detokenizer import Detokenizer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.sequence import PendingSequence


class RunningSequence:
    """A sequence in the context.

    Args:
        pending: The sequence as it waited.
        tokenizer: The model's.
        end_ids: Tokens that end a sequence.
        limit: Most tokens to generate.
        hidden_size: d, the width of the residual stream.
        num_layers: Number of decoder layers.
    """

    def __init__(
        self,
        pending: PendingSequence,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        limit: int,
        hidden_size: int,
        num_layers: int,
    ) -> None:
        request = pending.request
        self._hidden_size = hidden_size
        self.pending = pending
        self.token_ids = list(request.prompt_ids)
        """Prompt and answer."""
        self.num_computed = 0
        """Number of its first tokens whose keys and values are in the context."""
        self.slot = -1
        self._num_prompt_tokens = len(request.prompt_ids)
        self._limit = limit
        self._end_ids = frozenset(end_ids)
        self._detokenizer = Detokenizer(tokenizer, request.sampling.stop)
        self._logprobs = LogprobRecorder([request.top_logprobs], [request.records_distribution])
        self._processors = [
            processor
            for processor in (
                self._logprobs,
                GrammarMask([request.grammar], [limit], tokenizer, end_ids),
                TokenSampler([request.sampling], [(pending.seed, pending.sample)], [self._num_prompt_tokens]),
            )
            if processor.is_needed
        ]
        self._ids = torch.empty(1, len(request.prompt_ids) + limit + 1, dtype=torch.long)
        self._ids[0, : len(request.prompt_ids)] = torch.tensor(request.prompt_ids)
        self.prefix_hit: PrefixHit | None = None
        """What an earlier sequence had run of its prompt."""
        self._norms: dict[int, list[float]] = {}  # by position
        self._num_rows_sent = 0
        self._states: dict[int, Tensor] = {}  # (L, d) by position
        self._reducer = SequenceReducer(request, num_layers, hidden_size)

    @property
    def num_generated(self) -> int:
        """Number of tokens of the answer so far."""
        return len(self.token_ids) - self._num_prompt_tokens

    @property
    def first_step(self) -> int:
        """Decode step of the next token that is run; negative in the prompt."""
        return self.num_computed - self._num_prompt_tokens

    @property
    def state_places(self) -> frozenset[int]:
        """Where its states are read: after these layers, and before the first one for -1."""
        return self._reducer.places.union(self.pending.request.state_layers)

    @property
    def num_unchanged(self) -> int:
        """Number of its first tokens whose keys and values are those of the model itself."""
        is_acted_on = bool(self.pending.request.plans.layers)
        return min(self.num_computed, self._num_prompt_tokens) if is_acted_on else self.num_computed

    def next_tokens(self, most: int) -> list[int]:
        """Return the tokens that are run next, this many at most."""
        return self.token_ids[self.num_computed : self.num_computed + most]

    def num_logits(self, num_tokens: int) -> int:
        """Return of how many of the next `num_tokens`, the last ones, logits are asked for.

        In the last layer only these have states: so it is not the last token alone, but all of an answer that is run
        again, and of a prompt whose states are recorded.
        """
        if self.pending.request.records_prompt:
            return num_tokens
        end = self.num_computed + num_tokens
        return min(num_tokens, max(end - self._num_prompt_tokens, int(end == len(self.token_ids))))

    def observe(
        self, first_row: int, num_tokens: int, norms: Mapping[int, Tensor], states: Mapping[int, Tensor]
    ) -> None:
        """Note what a pass has shown of the next tokens, which are computed now.

        Args:
            first_row: Row of the first of them in the pass.
            num_tokens: How many.
            norms: By layer, those of all tokens of the pass (N,).
            states: By layer, those of all tokens of the pass (N, d).
        """
        record, first = self.pending.request.record, self.num_computed
        self.num_computed += num_tokens
        if record is None:
            return
        of_places = {place: states[place][first_row : first_row + num_tokens] for place in self._reducer.places}
        self._reducer.observe(first, of_places)
        start = first if record.prompt else max(first, self._num_prompt_tokens)
        rows = range(first_row + start - first, first_row + num_tokens)
        if record.norms and len(rows):
            by_layer = torch.stack([norms[layer][rows.start : rows.stop] for layer in record.layers], dim=-1)
            self._norms.update(enumerate(by_layer.tolist(), start))
        if record.states and len(rows):
            kept = torch.stack([states[layer][rows.start : rows.stop] for layer in record.layers], dim=1)
            self._states.update(enumerate(kept.unbind(), start))

    def choose(self, logits: Tensor) -> None:
        """Add the token that follows, given the logits (V,) of the last one."""
        scores, ids = logits[None], self._ids[:, : len(self.token_ids)]
        for processor in self._processors:
            scores = processor(ids, scores)
        token = int(scores[0].argmax())
        self._logprobs.add_chosen(torch.tensor([token]))
        self._ids[0, len(self.token_ids)] = token
        self.token_ids.append(token)
        self._detokenizer.add(token)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ends here, or None if it goes on."""
        if self.num_generated and (self.token_ids[-1] in self._end_ids or self._detokenizer.is_stopped):
            return "stop"
        return "length" if self.num_generated >= self._limit else None

    def send(self) -> None:
        """Send the text that a streamed sequence gained."""
        if self.pending.sink and (pieces := self._detokenizer.take()):
            self.pending.send(Delta(tuple(pieces), norms=self._new_norms()))

    def _new_norms(self) -> tuple[tuple[int, list[float]], ...]:
        """Return the ids and norms that the stream has not sent yet, where the request asks for them."""
        if not self.pending.request.streams_norms:
            return ()
        start, first = self._num_rows_sent, self._num_prompt_tokens
        rows = self._norm_rows(self.num_generated, start)
        self._num_rows_sent += len(rows)
        return tuple(zip(self.token_ids[first + start :], rows, strict=False))  # the last token has not been run yet

    def partial(self, num_tokens: int, *, is_running: bool) -> Partial:
        """Return what a pruner sees of it, as it was after so many tokens."""
        length = min(num_tokens, self.num_generated)
        logprobs = [token.logprob for token in self._logprobs.get(0, length)]
        ids = self.answer_ids[:length]
        return Partial(ids, self._norm_rows(length), logprobs, is_running, self._reductions(length))

    @property
    def answer_ids(self) -> list[int]:
        """The tokens of the answer."""
        return self.token_ids[self._num_prompt_tokens :]

    def answer_norms(self) -> list[list[float]]:
        """Return a row of norms for each token of the answer that was run."""
        return self._norm_rows(self.num_generated)

    def _norm_rows(self, num_tokens: int, start: int = 0) -> list[list[float]]:
        if not self.pending.request.norm_layers:
            return []
        first = self._num_prompt_tokens
        return [self._norms[position] for position in range(first + start, first + num_tokens - 1)]

    def complete(self, reason: FinishReason, report: dict[str, Any]) -> Completion:
        """Return the completion, and send it to the reader of a stream.

        Args:
            reason: Why it ends.
            report: What interventions did.
        """
        self._detokenizer.finish()
        ids, start = self.answer_ids, self._num_prompt_tokens
        has_prompt = self.pending.request.records_prompt
        completion = Completion(
            ids,
            self._detokenizer.pieces,
            reason,
            self._norm_rows(len(ids)),
            report,
            self._logprobs.get(0, len(ids)),
            [self._norms[position] for position in range(start)] if has_prompt and self._norms else [],
            self._stacked_states(start, start + len(ids) - 1),
            self._stacked_states(0, start) if has_prompt else None,
            self.prefix_hit,
            self._reductions(len(ids)),
        )
        if self.pending.sink:
            self.pending.send(Delta(tuple(self._detokenizer.take(is_last=True)), completion))
        return completion

    def _reductions(self, num_tokens: int) -> Reductions:
        """Return what the record keeps of the first tokens of the answer beside norms."""
        num_rows = max(0, num_tokens - 1)
        return Reductions(
            distribution=self._logprobs.distribution(0, num_tokens),
            updates=self._reducer.updates(num_rows),
            mean_states=self._reducer.mean_states(num_rows),
        )

    def _stacked_states(self, start: int, end: int) -> Tensor | None:
        """Return the states (end - start, L, d) of some positions, where they were recorded."""
        if not (layers := self.pending.request.state_layers):
            return None
        kept = [self._states[position] for position in range(start, end)]
        return torch.stack(kept) if kept else torch.empty(0, len(layers), self._hidden_size)

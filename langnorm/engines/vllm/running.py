"""One sequence while vLLM generates it: its tokens, their text, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from langnorm.engines.requests import Completion, Delta, FinishReason, Partial, TokenLogprob
from langnorm.engines.vllm.order import Order
from langnorm.reductions import Distribution, Reductions
from langnorm.text.detokenizer import Detokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.sequence import PendingSequence


class RunningSequence:
    """A sequence that vLLM is running.

    Args:
        pending: The sequence as it waited.
        key: Its name.
        tokenizer: The model's.
        end_ids: Tokens that end a sequence.
        limit: Most tokens to generate.
    """

    def __init__(
        self,
        pending: PendingSequence,
        key: str,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        limit: int,
    ) -> None:
        request = pending.request
        self.pending = pending
        has_distribution = request.records_distribution
        self.num_logprobs = 0 if has_distribution and request.top_logprobs is None else request.top_logprobs
        """What is asked of vLLM: a distribution needs to know how likely the token was that was chosen."""
        self.order = Order(
            key=key,
            num_prompt_tokens=len(request.prompt_ids),
            layers=request.norm_layers,
            records_prompt=request.records_prompt,
            records_distribution=has_distribution,
            plans=request.plans,
            sampling=request.sampling,
            seed=pending.seed,
            sample=pending.sample,
            grammar=request.grammar,
            max_tokens=limit,
            end_ids=tuple(end_ids),
            penalized_ids=request.prompt_ids if request.sampling.repetition_penalty != 1.0 else (),
        )
        self.token_ids: list[int] = []
        """Of the answer."""
        self.was_ended_here = False
        """Whether it ended by a text or a pruner, of which vLLM knows nothing."""
        self._logprobs: list[TokenLogprob] = []
        self._end_ids = frozenset(end_ids)
        self._detokenizer = Detokenizer(tokenizer, request.sampling.stop)

    @property
    def key(self) -> str:
        """Its name."""
        return self.order.key

    @property
    def has_orders(self) -> bool:
        """Whether the workers have something to tell of it, or to forget."""
        sampling = self.order.sampling
        is_chosen_here = not sampling.is_greedy or sampling.repetition_penalty != 1.0 or self.order.grammar is not None
        is_observed = self.order.layers or self.order.plans.all() or self.order.records_distribution
        return is_chosen_here or bool(is_observed)

    def add(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]) -> FinishReason | None:
        """Add new tokens, up to the one that ends it; return why it ends there, or None if it goes on."""
        for number, token in enumerate(token_ids):
            self.token_ids.append(token)
            self._logprobs += logprobs[number : number + 1]
            self._detokenizer.add(token)
            if token in self._end_ids:
                return "stop"
            if self._detokenizer.is_stopped:
                self.was_ended_here = True
                return "stop"
            if len(self.token_ids) >= self.order.max_tokens:
                return "length"
        return None

    def send(self) -> None:
        """Send the text that a streamed sequence gained."""
        if self.pending.sink and (pieces := self._detokenizer.take()):
            self.pending.send(Delta(tuple(pieces)))

    def partial(self, num_tokens: int, rows: bytes) -> Partial:
        """Return what a pruner sees of it, as it was after so many tokens, given its rows of norms so far."""
        logprobs = [token.logprob for token in self._logprobs[:num_tokens]]
        norms = self._read_rows(rows)[: num_tokens - 1] if self.order.layers else []
        return Partial(self.token_ids[:num_tokens], norms, logprobs, is_running=True)

    def complete(self, reason: FinishReason, taken: Mapping[str, Any] | None) -> Completion:
        """Return the completion, and send it to the reader of a stream.

        Args:
            reason: Why it ends.
            taken: What the workers have recorded: fields of `Taken`, or None where nothing was asked for.

        Raises:
            RuntimeError: There are not as many norms as tokens.
        """
        self._detokenizer.finish()
        rows = self._read_rows(taken["norms"]) if taken and self.order.layers else []
        num_prompt = self.order.num_prompt_tokens if self.order.records_prompt else 0
        if self.order.layers and (len(rows) != num_prompt + len(self.token_ids) - 1 or bool(np.isnan(rows).any())):
            msg = (
                f"{len(rows)} rows of norms came back for {len(self.token_ids)} tokens: this version of vLLM works "
                'otherwise than langnorm expects. Use `norms="off"`, and report this.'
            )
            raise RuntimeError(msg)
        completion = Completion(
            self.token_ids,
            self._detokenizer.pieces,
            reason,
            rows[num_prompt:],
            dict(taken["interventions"]) if taken else {},
            self._logprobs if self.pending.request.top_logprobs is not None else [],
            rows[:num_prompt],
            reductions=Reductions(distribution=self._read_distribution(taken["distribution"]) if taken else None),
        )
        if self.pending.sink:
            self.pending.send(Delta(tuple(self._detokenizer.take(is_last=True)), completion))
        return completion

    def _read_distribution(self, rows: bytes) -> Distribution | None:
        if not self.order.records_distribution:
            return None
        numbers = np.frombuffer(rows, dtype=np.float32).reshape(-1, 6).T.astype(np.float64)
        numbers[5] = [token.logprob for token in self._logprobs]
        return Distribution(*numbers)

    def _read_rows(self, rows: bytes) -> list[list[float]]:
        table: list[list[float]] = np.frombuffer(rows, dtype=np.float32).reshape(-1, len(self.order.layers)).tolist()
        return table

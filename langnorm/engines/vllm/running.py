"""One sequence while vLLM generates it: its tokens, their text, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from langnorm.engines.requests import Completion, Delta, FinishReason, Partial, PrefixHit, TokenLogprob
from langnorm.engines.token_choice.logprobs import LOWEST_LOGPROB
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
        self.prefix_hit: PrefixHit | None = None
        """What was there already of its prompt."""
        self.was_ended_here = False
        """Whether it ended by a text or a pruner, of which vLLM knows nothing."""
        self._logprobs: list[TokenLogprob] = []
        self._end_ids = frozenset(end_ids)
        self._detokenizer = Detokenizer(tokenizer, request.sampling.stop)
        self._rows_sent: list[list[float]] = []  # to a stream

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

    def add(self, token_ids: Sequence[int], logprobs: Sequence[Mapping[int, Any]]) -> FinishReason | None:
        """Add new tokens, up to the one that ends it; return why it ends there, or None if it goes on.

        Args:
            token_ids: The tokens.
            logprobs: What vLLM says of each, where it was asked.
        """
        for number, token in enumerate(token_ids):
            self.token_ids.append(token)
            if self.num_logprobs is not None:
                self._logprobs.append(_read_logprob(token, logprobs[number], self.num_logprobs))
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

    @property
    def unsent_rows(self) -> range:
        """The numbers of the tokens whose norms its stream is to show and has not got; the last one is not run yet."""
        is_live = self.pending.sink is not None and self.pending.request.streams_norms
        return range(len(self._rows_sent), len(self.token_ids) - 1) if is_live else range(0)

    def send_norms(self, norms: bytes) -> None:
        """Send norms to a stream.

        Args:
            norms: Those of `unsent_rows`, as `Taken.norms` has them.
        """
        start, rows = len(self._rows_sent), self._read_rows(norms)
        self._rows_sent += rows
        self.pending.send(Delta((), norms=tuple(zip(self.token_ids[start:], rows, strict=False))))

    def partial(self, num_tokens: int, seen: Mapping[str, Any] | None) -> Partial:
        """Return what a pruner sees of it, as it was after so many tokens.

        Args:
            num_tokens: How many.
            seen: What the workers have recorded of them: fields of `Taken`, or None if they know nothing of it.
        """
        _, rows = self._split_rows(seen)
        logprobs = [token.logprob for token in self.logprobs[:num_tokens]]
        reductions = self._read_reductions(num_tokens, seen)
        return Partial(self.token_ids[:num_tokens], rows, logprobs, is_running=True, reductions=reductions)

    def complete(self, reason: FinishReason, taken: Mapping[str, Any] | None) -> Completion:
        """Return the completion, and send it to the reader of a stream.

        Args:
            reason: Why it ends.
            taken: What the workers have recorded: fields of `Taken`, or None where nothing was asked for.

        Raises:
            RuntimeError: There are not as many norms as tokens.
        """
        self._detokenizer.finish()
        prompt_rows, rows = self._split_rows(taken)
        if self.order.layers and len(rows) != len(self.token_ids) - 1:
            msg = (
                f"{len(rows)} rows of norms came back for {len(self.token_ids)} tokens: this version of vLLM works "
                'otherwise than langnorm expects. Use `norms="off"`, and report this.'
            )
            raise RuntimeError(msg)
        # Tokens that were run again, because vLLM had preempted the sequence, may be rounded otherwise.
        rows[: len(self._rows_sent)] = self._rows_sent
        completion = Completion(
            self.token_ids,
            self._detokenizer.pieces,
            reason,
            rows,
            dict(taken["interventions"]) if taken else {},
            self.logprobs,
            prompt_rows,
            prefix_hit=self.prefix_hit,
            reductions=self._read_reductions(len(self.token_ids), taken),
        )
        if self.pending.sink:
            self.pending.send(Delta(tuple(self._detokenizer.take(is_last=True)), completion))
        return completion

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Those of its tokens, where its request asks for them."""
        return self._logprobs if self.pending.request.top_logprobs is not None else []

    def _split_rows(self, seen: Mapping[str, Any] | None) -> tuple[list[list[float]], list[list[float]]]:
        """Return the norms of its prompt, and those of its answer up to the first that is missing."""
        if not self.order.layers or seen is None:
            return [], []
        rows = self._read_rows(seen["norms"])
        num_prompt = self.order.num_prompt_tokens if self.order.records_prompt else 0
        return rows[:num_prompt], rows[num_prompt:]

    def _read_rows(self, norms: bytes) -> list[list[float]]:
        """Return rows of norms up to the first that is missing."""
        table = np.frombuffer(norms, dtype=np.float32).reshape(-1, len(self.order.layers))
        is_missing = np.isnan(table).any(axis=1)
        rows: list[list[float]] = (table[: int(is_missing.argmax())] if is_missing.any() else table).tolist()
        return rows

    def _read_reductions(self, num_tokens: int, seen: Mapping[str, Any] | None) -> Reductions:
        if not self.order.records_distribution or seen is None:
            return Reductions()
        table = np.frombuffer(seen["distribution"], dtype=np.float32).reshape(-1, 6)
        *columns, _ = table.T.astype(np.float64)
        logprobs = np.array([token.logprob for token in self._logprobs[:num_tokens]])
        names = [field.name for field in fields(Distribution)]
        return Reductions(distribution=Distribution(**dict(zip(names, [*columns, logprobs], strict=True))))


def _read_logprob(token: int, entry: Mapping[int, Any], num_top: int) -> TokenLogprob:
    """Return the log-probability of a token; vLLM lists it with the likeliest, also where it is none of them."""
    values = {other: max(value.logprob, LOWEST_LOGPROB) for other, value in entry.items()}
    likeliest = sorted((value.rank, other) for other, value in entry.items() if value.rank <= num_top)
    return TokenLogprob(values[token], tuple((other, values[other]) for _, other in likeliest))

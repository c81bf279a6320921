"""vLLM's engine as a script: what stands in front of it is tested where vLLM is not installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from langnorm.engines.vllm.core import NewTokens
from langnorm.engines.vllm.order import Order, Taken

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NUM_LAYERS = 4


class ScriptedCore:
    """Answers every prompt with the same tokens, one in each step; norms count tokens and layers.

    Attributes:
        running: The orders of sequences that go on, by key.
        forgotten: Keys that were taken or forgotten.
        error: Raised by the next step.
        lost: What vLLM says of a sequence that it gives up in the next step.
        missing_rows: How many of the last rows of norms do not come back.
        rounding: What norms are larger by.
        num_asked: How often it was asked for norms of streams.
        texts: Those that are being scored, by key.
        holds_texts: Whether they come to no end.
        refusal: Raised when a text is to enter.
    """

    def __init__(self, answer: Sequence[int], *, can_act: bool = True, vocabulary_size: int = 1024) -> None:
        self.answer = list(answer)
        self.num_layers, self.can_act = NUM_LAYERS, can_act
        self.reason_against_recursion = ""
        self.running: dict[str, Order] = {}
        self.forgotten: list[str] = []
        self.aborted: list[str] = []
        self.error: Exception | None = None
        self.lost: Exception | None = None
        self.missing_rows = 0
        self.rounding = 0.0
        self.num_cached = 0
        self.bytes_per_token = 64
        self.is_closed = False
        self.num_resets = 0
        self.num_asked = 0
        self.texts: dict[str, list[int]] = {}
        self.holds_texts = False
        self.refusal: Exception | None = None
        self._num_tokens: dict[str, int] = {}
        self._orders: dict[str, Order] = {}
        self._num_logprobs: dict[str, int | None] = {}
        self.config = SimpleNamespace(
            model_config=SimpleNamespace(
                model="scripted",
                architectures=["Scripted"],
                dtype=torch.float32,
                quantization=None,
                max_model_len=64,
                hf_text_config=SimpleNamespace(eos_token_id=None),
                get_vocab_size=lambda: vocabulary_size,
                try_get_generation_config=lambda: {"eos_token_id": [7, 10**6], "temperature": 0.5, "do_sample": True},
            )
        )

    def try_out(self, prompt_ids: Sequence[int]) -> None:
        """Find nothing wrong."""

    def add(self, order: Order, prompt_ids: Sequence[int], num_logprobs: int | None = None) -> None:
        """Let a sequence enter, of which is known what comes back from another process."""
        assert len(prompt_ids) == order.num_prompt_tokens
        order = Order.from_dict(order.to_dict())
        self.running[order.key] = self._orders[order.key] = order
        self._num_tokens[order.key] = 0
        self._num_logprobs[order.key] = num_logprobs

    def add_text(self, key: str, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> None:
        """Let a text enter."""
        if self.refusal:
            raise self.refusal
        self.texts[key] = [*prompt_ids, *continuation_ids]

    def abort(self, keys: Sequence[str]) -> None:
        """Give up sequences."""
        for key in keys:
            self.aborted.append(key)
            self.running.pop(key, None)
            self.texts.pop(key, None)

    def step(self) -> list[NewTokens]:
        """Return the next token of each sequence."""
        if self.error:
            error, self.error = self.error, None
            raise error
        gained = []
        for key, ids in list(self.texts.items()):
            if self.holds_texts:
                continue
            del self.texts[key]
            lost, self.lost = self.lost, None
            # The likeliest token is 3, all others are the less likely the larger they are.
            *others, last = [{3: SimpleNamespace(logprob=-0.3), i: SimpleNamespace(logprob=-i / 10)} for i in ids[1:]]
            gained.append(NewTokens(key, ids[-1:], [last], 0, lost, [None, *others]))
        for key, order in list(self.running.items()):
            lost, self.lost = self.lost, None
            token = self.answer[self._num_tokens[key] % len(self.answer)]
            self._num_tokens[key] += 1
            num_top = self._num_logprobs[key]
            entry = {token: SimpleNamespace(logprob=-0.5, rank=2), 3: SimpleNamespace(logprob=-0.1, rank=1)}
            gained.append(NewTokens(key, [token], [] if num_top is None else [entry], self.num_cached, lost))
            if token in order.end_ids or self._num_tokens[key] == order.max_tokens:
                del self.running[key]
        return gained

    def take(self, keys: Sequence[str], num_rows: Sequence[int]) -> list[Mapping[str, Any] | None]:
        """Return norms: 10 times the number of the row, plus the layer."""
        taken = self.peek(keys, num_rows)
        self.forget(keys)
        return taken

    def peek(self, keys: Sequence[str], num_rows: Sequence[int]) -> list[Mapping[str, Any] | None]:
        """Return the same of sequences that go on."""
        return [self._read(self._orders[key], length) for key, length in zip(keys, num_rows, strict=True)]

    def norms(self, keys: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Return some of the same, without the prompt."""
        found = []
        for key, start, end in zip(keys, starts, ends, strict=True):
            order = self._orders[key]
            table = np.frombuffer(self._read(order, end)["norms"], dtype=np.float32).reshape(-1, len(order.layers))
            first = order.num_prompt_tokens if order.records_prompt else 0
            found.append(table[first + start :].tobytes())
        self.num_asked += 1
        return found

    def _read(self, order: Order, num_rows: int) -> Mapping[str, Any]:
        length = num_rows + (order.num_prompt_tokens if order.records_prompt else 0) - self.missing_rows
        table = 10 * np.arange(1, length + 1)[:, None] + np.array(order.layers) + self.rounding
        distribution = np.ones((num_rows + 1, 6), dtype=np.float32) if order.records_distribution else np.empty(0)
        return Taken(norms=table.astype(np.float32).tobytes(), distribution=distribution.tobytes()).to_dict()

    def forget(self, keys: Sequence[str]) -> None:
        """Note the keys."""
        self.forgotten += keys

    def reset_prefix_cache(self) -> None:
        """Note it."""
        self.num_resets += 1

    def close(self) -> None:
        """Note it."""
        self.is_closed = True

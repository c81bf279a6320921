"""The vLLM engine: continuous batching, norms and interventions by hooks in its workers."""

from __future__ import annotations

import itertools
import secrets
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from langnorm.engines.base import ABILITIES, check_continuations, check_token_ids
from langnorm.engines.checkpoint import hash_bytes
from langnorm.engines.deadline import Deadline
from langnorm.engines.queued import QueuedEngine
from langnorm.engines.requests import Likelihood, Request
from langnorm.engines.transformers.generation_fields import checked_sampling_defaults
from langnorm.engines.vllm.running import RunningSequence
from langnorm.engines.vllm.scheduler import Scheduler
from langnorm.engines.vllm.scoring import PendingText
from langnorm.errors import OptionError
from langnorm.norms.identity import ModelIdentity
from langnorm.norms.layers import select_layers
from langnorm.norms.online import OnlineStatistics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.sequence import PendingSequence
    from langnorm.engines.vllm.core import VllmCore
    from langnorm.norms.profile import NormProfile


class VllmEngine(QueuedEngine):
    """Runs a model by vLLM, which forms the batches: `max_batch_size` of a request has no effect here.

    Tokens are chosen from its logits by langnorm's own rules, so a request and a seed give what they give on other
    engines as far as logits agree.

    Args:
        core: vLLM's engine, with the model.
        tokenizer: The model's.
        content_hash: Of its weights; None where they have no files that can be compared.
        profile: What came with the weights; one of another model is left aside.
        name: What the model is called.

    Raises:
        ModelError: A trial shows that norms do not come back as they should.
    """

    abilities = frozenset(ABILITIES) - {"lens", "mean_states", "states", "updates"}
    streams_norms = True

    def __init__(
        self,
        core: VllmCore,
        tokenizer: PreTrainedTokenizerBase,
        content_hash: str | None,
        profile: NormProfile | None = None,
        name: str | None = None,
    ) -> None:
        config = core.config.model_config
        self._core, self._tokenizer = core, tokenizer
        core.try_out(range(min(5, config.get_vocab_size())))
        self._name = name or config.model
        self._num_layers: int = core.num_layers
        self._vocabulary_size: int = config.get_vocab_size()
        self._context_length: int = config.max_model_len
        generation = GenerationConfig.from_dict(config.try_get_generation_config())
        self._sampling_defaults = checked_sampling_defaults(generation)
        end_ids = _find_end_ids(generation, config.hf_text_config)
        self._end_ids = [i for i in end_ids if i < self._vocabulary_size]  # vLLM refuses others
        dtype = str(config.dtype).removeprefix("torch.")
        self._identity = ModelIdentity(
            model=config.architectures[0],
            weights=content_hash or f"files of {self._name}",
            dtype=f"{dtype} {config.quantization} by vLLM" if config.quantization else dtype,
            num_layers=self._num_layers,
            chat_template=hash_bytes(str(tokenizer.chat_template).encode()),
        )
        self._profile = profile if profile is not None and profile.identity == self._identity else None
        self.statistics = OnlineStatistics(self._num_layers)  # at once, for any thread may ask for it
        self._keys = itertools.count()
        self._session = secrets.token_hex(4)
        weakref.finalize(self, core.close)
        self._scheduler = Scheduler(core, self._begin, self._learn, name=f"langnorm {self._name}")

    @property
    def kind(self) -> str:
        """What the engine itself is called in messages."""
        return "vllm"

    @property
    def name(self) -> str:
        """What its model is called where the caller does not name it."""
        return self._name

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer, with its chat template."""
        return self._tokenizer

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return self._num_layers

    @property
    def context_length(self) -> int:
        """Most tokens that prompt and answer may have together: `max_model_len` of vLLM."""
        return self._context_length

    @property
    def scored_length(self) -> int:
        """Most tokens that `score` runs of a text: vLLM keeps a place for an answer."""
        return self._context_length - 1

    @property
    def identity(self) -> ModelIdentity:
        """What a profile of this model is tied to: the same as on transformers, whose norms these are."""
        return self._identity

    @property
    def profile(self) -> NormProfile | None:
        """The profile that came with the weights, if one did and it is of this model."""
        return self._profile

    @property
    def num_waiting(self) -> int:
        """Number of sequences that vLLM does not know of yet."""
        return self._scheduler.num_waiting

    @property
    def sampling_defaults(self) -> Mapping[str, Any]:
        """What the model's own generation configuration says of sampling; greedy unless it samples."""
        return self._sampling_defaults

    def check(self, request: Request) -> None:
        """Do nothing if this engine can run a request.

        Raises:
            OptionError: It asks for what this engine cannot do, or for a layer outside the model.
            PromptError: The prompt is empty, leaves no room for an answer, or has a token that the model does not know.
        """
        super().check(request)
        check_token_ids(request.prompt_ids, self._vocabulary_size)
        for plan in request.plans.all():
            select_layers(plan.layers, self.num_layers)
            self._check_acting(plan.options.name)
        if recursion := request.plans.recursion:
            self._check_recursion(recursion.layers, recursion.options.block)

    def _check_acting(self, name: str) -> None:
        if not self._core.can_act:
            msg = (
                f"`{name}` acts between layers, and this model is compiled into a graph. Load it with "
                '`engine_kwargs={"interventions": True}`.'
            )
            raise OptionError(msg)

    def _check_recursion(self, layers: Sequence[int], block: int) -> None:
        if layers and layers[0] - block + 1 < 0:
            msg = (
                f"`block={block}` of `recursion` reaches below the first layer from layer `{layers[0]}`. "
                f"Use a block up to {layers[0] + 1}, or later layers."
            )
            raise OptionError(msg)
        if reason := self._core.reason_against_recursion:
            msg = f"`recursion` is not possible with this model on vLLM: {reason}. Use steering or suppression."
            raise OptionError(msg)

    def clear_prefix_cache(self) -> None:
        """Forget all prompts and answers of earlier calls; those of sequences that are running stay."""
        self._scheduler.between_steps(self._core.reset_prefix_cache)

    def score(self, prompt_ids: Sequence[Sequence[int]], continuation_ids: Sequence[Sequence[int]]) -> list[Likelihood]:
        """Return how likely each continuation is, as `Engine.score` has it; vLLM runs them beside its sequences."""
        check_continuations(self, prompt_ids, continuation_ids, self._vocabulary_size)
        texts = [
            PendingText(self._new_key(), prompt, continuation)
            for prompt, continuation in zip(prompt_ids, continuation_ids, strict=True)
            if continuation
        ]
        self._scheduler.score(texts)
        deadline = Deadline(None)
        try:
            scored = iter([deadline.result(text.future) for text in texts])
        finally:
            for text in texts:
                text.cancel()  # without effect on those that are done
        return [next(scored) if continuation else Likelihood((), is_greedy=True) for continuation in continuation_ids]

    def _enqueue(self, sequences: Sequence[PendingSequence]) -> None:
        self._scheduler.submit(sequences)

    def _begin(self, pending: PendingSequence) -> RunningSequence:
        request = pending.request
        left = self.context_length - len(request.prompt_ids)
        limit = left if request.sampling.max_tokens is None else min(left, request.sampling.max_tokens)
        return RunningSequence(pending, self._new_key(), self._tokenizer, self._end_ids, limit)

    def _new_key(self) -> str:
        return f"{self._session}-{next(self._keys)}"

    def _learn(self, ended: Sequence[tuple[RunningSequence, list[list[float]]]]) -> None:
        """Add the norms of sequences that have ended together, at once: each time costs as much for one as for many.

        Those that were acted on are not the model's own.
        """
        by_layers: dict[tuple[int, ...], list[tuple[RunningSequence, list[list[float]]]]] = {}
        for sequence, rows in ended:
            request = sequence.pending.request
            if rows and not request.plans.layers:
                by_layers.setdefault(request.norm_layers, []).append((sequence, rows))
        for layers, members in by_layers.items():
            norms = pad_sequence([torch.tensor(rows) for _, rows in members])  # (steps, B, L)
            ids = [sequence.token_ids for sequence, _ in members]
            self.statistics.update(norms, layers, [len(rows) for _, rows in members], ids)


def _find_end_ids(generation: Any, config: Any) -> list[int]:
    """Return the tokens that end a sequence."""
    for source in (generation, config):
        ids = getattr(source, "eos_token_id", None)
        if ids is not None:
            return list(ids) if isinstance(ids, list | tuple) else [ids]
    return []

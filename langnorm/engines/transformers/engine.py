"""The transformers engine: `model.generate` over padded batches, with hooks and settings of each sequence's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from langnorm.engines.base import ABILITIES, check_continuations, check_token_ids
from langnorm.engines.queued import QueuedEngine
from langnorm.engines.requests import Completion, Likelihood, Request
from langnorm.engines.sequence import PendingSequence
from langnorm.engines.transformers.batch import BatchGenerator
from langnorm.engines.transformers.batching import Batcher
from langnorm.engines.transformers.decoder_layers import find_decoder_layers
from langnorm.engines.transformers.free_memory import give_back_memory
from langnorm.engines.transformers.generation_fields import checked_sampling_defaults
from langnorm.engines.transformers.identity import identify_model
from langnorm.engines.transformers.key_values import KeyValues
from langnorm.engines.transformers.likelihood import score_continuations
from langnorm.engines.transformers.out_of_memory import translate_memory_errors
from langnorm.engines.transformers.prefill import Prefiller
from langnorm.engines.transformers.prefix_cache import PrefixCache, check_prefix_cache_bytes
from langnorm.engines.transformers.rerun import check_can_rerun
from langnorm.engines.transformers.sharing import prefix_cache_size
from langnorm.engines.transformers.unembedding import Unembedding
from langnorm.errors import MemoryLimitError
from langnorm.norms.layers import select_layers
from langnorm.norms.online import OnlineStatistics

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from langnorm.norms.identity import ModelIdentity
    from langnorm.norms.profile import NormProfile


class TransformersEngine(QueuedEngine):
    """Runs a causal language model of transformers.

    Args:
        model: The model, on its device or devices.
        tokenizer: Its tokenizer.
        layers_path: Where its decoder layers are, such as `"model.layers"`, if they are not found by themselves.
        profile: What came with the weights. One that is not of this model as loaded, in another dtype for example, is
            left aside.
        prefix_cache_bytes: Most memory for the keys and values of recent sequences, from which those that begin alike
            start; 0 keeps none. By default a sixteenth of the weights, and at least 256 MiB.
        weights_hash: What `hash_checkpoint` says of the files that the weights were read from; by default it is
            computed of the parameters in memory.
        name: What the model is called; by default where it was loaded from, or else its class.

    Raises:
        ModelError: The decoder layers cannot be found.
        OptionError: `prefix_cache_bytes` is not a number of bytes.
    """

    abilities = frozenset(ABILITIES)
    streams_norms = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        layers_path: str | None = None,
        profile: NormProfile | None = None,
        weights_hash: str | None = None,
        prefix_cache_bytes: int | None = None,
        name: str | None = None,
    ) -> None:
        check_prefix_cache_bytes(prefix_cache_bytes)
        # What `torch.compile` returns runs this one in `generate`; it is of another class, with other names of weights.
        model = getattr(model, "_orig_mod", model)
        self._model = model.eval()
        self._name = name or model.config.name_or_path or type(model).__name__
        self._weights_hash = weights_hash
        self._tokenizer = tokenizer
        self._layers = find_decoder_layers(model, layers_path)
        self.statistics = OnlineStatistics(len(self._layers))  # at once, for any thread may ask for it
        is_ours = profile is not None and profile.identity == self.identity
        self._profile = profile if is_ours else None
        self._prefix_cache: PrefixCache[KeyValues] = PrefixCache(
            prefix_cache_size(model) if prefix_cache_bytes is None else prefix_cache_bytes
        )
        self._unembedding: Unembedding | None = None  # once a request has asked for it
        self._prefiller = Prefiller(model, self._prefix_cache)
        self._batcher = Batcher(
            self._run, name=f"langnorm {type(model).__name__}", model=model, on_batch_end=give_back_memory
        )

    @property
    def kind(self) -> str:
        """What the engine itself is called in messages."""
        return "transformers"

    @property
    def name(self) -> str:
        """What the model is called where the caller does not name it."""
        return self._name

    @property
    def model(self) -> PreTrainedModel:
        """The model that is run."""
        model: PreTrainedModel = self._model
        return model

    @property
    def num_waiting(self) -> int:
        """Number of sequences that wait for a batch, those of the running one not counted."""
        return self._batcher.num_waiting

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer, with its chat template."""
        return self._tokenizer

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return len(self._layers)

    @property
    def context_length(self) -> int | None:
        """Most tokens that prompt and answer may have together; None when the model has no limit."""
        return getattr(self._model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def generation_config(self) -> GenerationConfig:
        """The model's own generation configuration."""
        config: GenerationConfig = self._model.generation_config
        return config

    @property
    def sampling_defaults(self) -> Mapping[str, Any]:
        """What the model's own generation configuration says of sampling; greedy unless it samples."""
        return checked_sampling_defaults(self.generation_config)

    @cached_property
    def identity(self) -> ModelIdentity:
        """What a profile of this model is tied to."""
        return identify_model(self._model, self._tokenizer, self.num_layers, self._weights_hash)

    @property
    def profile(self) -> NormProfile | None:
        """The profile that came with the weights, if one did and it is of this model."""
        return self._profile

    @property
    def prefix_cache(self) -> PrefixCache[KeyValues]:
        """What recent sequences began with, from which others start; it can be cleared."""
        return self._prefix_cache

    def clear_prefix_cache(self) -> None:
        """Forget all prompts and answers of earlier calls, and free the memory that they take."""
        self._prefix_cache.clear()

    def expect(self, num_requests: int) -> AbstractContextManager[None]:
        """Announce this many requests from other threads or tasks, so that they are run together."""
        return self._batcher.expect(num_requests)

    def preparing(self) -> AbstractContextManager[None]:
        """Announce that inside the `with` block a request is being made, which comes in a moment."""
        return self._batcher.preparing()

    def score(self, prompt_ids: Sequence[Sequence[int]], continuation_ids: Sequence[Sequence[int]]) -> list[Likelihood]:
        """Return how likely each continuation is, as `Engine.score` has it, computed in padded batches."""
        check_continuations(self, prompt_ids, continuation_ids, self._vocabulary_size)
        with self._batcher.paused():
            return score_continuations(self._model, prompt_ids, continuation_ids)

    def _enqueue(self, sequences: Sequence[PendingSequence]) -> None:
        self._batcher.submit(sequences)

    def check(self, request: Request) -> None:
        """Do nothing if this engine can run a request.

        Raises:
            OptionError: A layer is outside the model, or a block of layers begins below the first one.
            PromptError: The prompt is empty, leaves no room for an answer, or has a token that the model does not know.
            ModelError: A layer that is to be run again has a state that this would change, or a lens is asked for and
                what leads from states to logits is not found.
        """
        super().check(request)
        check_token_ids(request.prompt_ids, self._vocabulary_size)
        if recursion := request.plans.recursion:
            select_layers(recursion.layers, self.num_layers)
            check_can_rerun(self._model, recursion.layers, recursion.options.block)
        if request.lens_layers and self._unembedding is None:
            self._find_unembedding(request.prompt_ids)

    def _find_unembedding(self, token_ids: Sequence[int]) -> None:
        """Find what leads from states to logits, tried on some tokens, or raise `ModelError`."""
        with self._batcher.paused():  # no other pass is under way: its weights may be on their way between devices
            if self._unembedding is None:
                unembedding = Unembedding(self._model, self._layers)
                unembedding.check(token_ids)
                self._unembedding = unembedding

    @property
    def _vocabulary_size(self) -> int:
        size: int = self._model.get_input_embeddings().weight.size(0)
        return size

    def _limit(self, request: Request) -> int:
        limits = [request.sampling.max_tokens]
        if self.context_length is not None:
            limits.append(self.context_length - len(request.prompt_ids))
        # A model without a limit stops by itself or at the caller's wish.
        return min((limit for limit in limits if limit is not None), default=2**31 - 1)

    def _run(self, sequences: Sequence[PendingSequence]) -> list[Completion]:
        """Generate one batch, on the thread of the queue."""
        generator = BatchGenerator(
            self._model,
            self._tokenizer,
            self._layers,
            self._prefiller,
            self.statistics,
            self._batcher.should_restart,
            self._unembedding,
        )
        limits = [self._limit(sequence.request) for sequence in sequences]
        longest = max(len(sequence.request.prompt_ids) for sequence in sequences)
        run = partial(generator.generate, sequences, limits)
        try:
            return translate_memory_errors(run, len(sequences), longest, max(limits))
        except MemoryLimitError:
            if not self._prefix_cache.clear():
                raise
        for sequence in sequences:
            sequence.begin()
        return translate_memory_errors(run, len(sequences), longest, max(limits))

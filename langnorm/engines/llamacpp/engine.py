"""The llama.cpp engine: GGUF files, sequences that join and leave between forward passes, norms by its callback."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.base import ABILITIES, check_continuations, check_token_ids
from langnorm.engines.checkpoint import hash_bytes
from langnorm.engines.llamacpp.forward_pass import PassRunner
from langnorm.engines.llamacpp.library import LlamaContext, LlamaModel, PassTokens
from langnorm.engines.llamacpp.likelihood import score_continuation
from langnorm.engines.llamacpp.observer import StateObserver
from langnorm.engines.llamacpp.options import LlamaOptions
from langnorm.engines.llamacpp.reducing import SequenceReducer
from langnorm.engines.llamacpp.running import RunningSequence
from langnorm.engines.llamacpp.scheduler import Scheduler
from langnorm.engines.llamacpp.slots import Slots
from langnorm.engines.options import Sampling
from langnorm.engines.queued import QueuedEngine
from langnorm.errors import ModelError, OptionError
from langnorm.norms.identity import ModelIdentity
from langnorm.norms.online import OnlineStatistics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.requests import Likelihood, Request
    from langnorm.engines.sequence import PendingSequence
    from langnorm.norms.profile import NormProfile

_SAMPLING_KEYS: Mapping[str, tuple[str, Callable[[str], float]]] = {
    "temperature": ("general.sampling.temp", float),
    "top_k": ("general.sampling.top_k", int),
    "top_p": ("general.sampling.top_p", float),
    "min_p": ("general.sampling.min_p", float),
}
"""Fields of `Sampling`, and what a GGUF file calls them."""


class LlamaCppEngine(QueuedEngine):
    """Runs a GGUF file by llama.cpp.

    Tokens are chosen from its logits by langnorm's own rules, so a request and a seed give what they give on other
    engines as far as logits agree.

    Args:
        path: The file.
        tokenizer: Its tokenizer.
        content_hash: Of the file: a profile is tied to it.
        options: How it is run.
        profile: What came with the file; one of another model is left aside.
        name: What the model is called; by default the name of the file.

    Raises:
        MissingDependencyError: llama-cpp-python is not installed.
        ModelError: llama.cpp cannot load the file, or what it says of sampling is not allowed.
    """

    abilities = frozenset(ABILITIES) - {"lens", "recursion"}
    streams_norms = True

    def __init__(
        self,
        path: Path,
        tokenizer: PreTrainedTokenizerBase,
        content_hash: str,
        options: LlamaOptions | None = None,
        profile: NormProfile | None = None,
        name: str | None = None,
    ) -> None:
        self._options = options or LlamaOptions()
        self._tokenizer = tokenizer
        self._model = LlamaModel(path, self._options)
        self._name = name or path.name
        self._identity = ModelIdentity(
            model=self._model.architecture,
            weights=content_hash,
            dtype=f"{self._model.description} by llama.cpp",
            num_layers=self._model.num_layers,
            chat_template=hash_bytes(str(tokenizer.chat_template).encode()),
        )
        self._profile = profile if profile is not None and profile.identity == self._identity else None
        self.statistics = OnlineStatistics(self._model.num_layers)  # at once, for any thread may ask for it
        self._sampling_defaults = _read_sampling(self._model)
        observer = StateObserver(self._model.hidden_size, self._model.num_layers)
        self._context = LlamaContext(self._model, self._options, observer.callback)
        finalizer = weakref.finalize(self, _free, self._context, self._model)
        finalizer.atexit = False  # the worker may still be in a pass
        self._observer = observer
        self._shown_layers = self._find_shown_layers()
        slots = Slots(self._options.max_sequences, can_share=not self._model.has_recurrent_state)
        passes = PassRunner(self._context, observer, self.num_layers)
        self._scheduler = Scheduler(
            self._context, passes, slots, self._begin, self._learn, name=f"langnorm {path.stem}"
        )

    @property
    def kind(self) -> str:
        """What the engine itself is called in messages."""
        return "llamacpp"

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
        return self._model.num_layers

    @property
    def context_length(self) -> int:
        """Most tokens that prompt and answer may have together: what the context holds."""
        return min(self._context.num_cells, self._model.trained_length)

    @property
    def identity(self) -> ModelIdentity:
        """What a profile of this model is tied to."""
        return self._identity

    @property
    def profile(self) -> NormProfile | None:
        """The profile that came with the file, if one did and it is of this model."""
        return self._profile

    @property
    def num_waiting(self) -> int:
        """Number of sequences that wait for their turn."""
        return self._scheduler.num_waiting

    @property
    def sampling_defaults(self) -> Mapping[str, Any]:
        """What the file says of sampling, if it says anything; greedy otherwise."""
        return self._sampling_defaults

    def check(self, request: Request) -> None:
        """Do nothing if this engine can run a request.

        Raises:
            OptionError: It asks for recursion, or for a layer outside the model.
            PromptError: The prompt is empty, leaves no room for an answer, or has a token that the model does not know.
        """
        if request.plans.recursion:
            msg = (
                "llama.cpp runs each layer once: `recursion` is not possible with it. Use steering or suppression, or "
                '`engine="transformers"`, which reads GGUF files too.'
            )
            raise OptionError(msg)
        super().check(request)
        check_token_ids(request.prompt_ids, self._model.vocabulary_size)
        places = SequenceReducer(request, self.num_layers, 0).places
        layers = {*(request.record.layers if request.record else ()), *request.plans.layers, *places}
        if hidden := sorted(layers - self._shown_layers):
            where = f"after layer {hidden[0]}" if hidden[0] >= 0 else "before the first layer"
            msg = (
                f'llama.cpp does not show the states {where} of this model. Use `norms="off"`, or '
                '`engine="transformers"`.'
            )
            raise OptionError(msg)

    def score(self, prompt_ids: Sequence[Sequence[int]], continuation_ids: Sequence[Sequence[int]]) -> list[Likelihood]:
        """Return how likely each continuation is, as `Engine.score` has it.

        Raises:
            MemoryLimitError: There is no room beside the answers under way.
        """
        check_continuations(self, prompt_ids, continuation_ids, self._model.vocabulary_size)
        return [
            self._scheduler.between_passes(partial(self._score, prompt, continuation))
            for prompt, continuation in zip(prompt_ids, continuation_ids, strict=True)
        ]

    def _score(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> Likelihood:
        """Return how likely a continuation is, on the worker's thread."""
        self._observer.begin(0, (), ())  # of which nothing is observed
        return score_continuation(
            self._context,
            self._options.max_sequences,  # the one slot that no sequence takes
            prompt_ids,
            continuation_ids,
            self._scheduler.drop_longest_idle,
        )

    def _find_shown_layers(self) -> frozenset[int]:
        """Return the layers after which llama.cpp shows states; the weights are read for the first time meanwhile."""
        self._observer.begin(1, [0], range(-1, self.num_layers))
        self._context.run([PassTokens(0, 0, [0], 1)])
        self._observer.end()
        self._context.clear()
        return frozenset(self._observer.norms)

    def clear_prefix_cache(self) -> None:
        """Forget all prompts and answers of earlier calls."""
        self._scheduler.forget_idle()

    def _enqueue(self, sequences: Sequence[PendingSequence]) -> None:
        self._scheduler.submit(sequences)

    def _begin(self, pending: PendingSequence) -> RunningSequence:
        request = pending.request
        left = self.context_length - len(request.prompt_ids)
        limit = left if request.sampling.max_tokens is None else min(left, request.sampling.max_tokens)
        return RunningSequence(
            pending, self._tokenizer, self._model.end_ids, limit, self._model.hidden_size, self.num_layers
        )

    def _learn(self, sequence: RunningSequence) -> None:
        """Add the norms of a finished sequence; those that were acted on are not the model's own."""
        rows = sequence.answer_norms()
        if rows and not sequence.pending.request.plans.layers:
            layers, ids = sequence.pending.request.norm_layers, sequence.answer_ids
            self.statistics.update(torch.tensor(rows)[:, None], layers, [len(rows)], [ids])


def _free(context: LlamaContext, model: LlamaModel) -> None:
    context.close()
    model.close()


def _read_sampling(model: LlamaModel) -> dict[str, Any]:
    """Return what the metadata of a file say of sampling, as fields of `Sampling`.

    Raises:
        ModelError: They say something that is not allowed.
    """
    texts = {key: model.metadata(key) for key, _ in _SAMPLING_KEYS.values()}
    given = {key: text for key, text in texts.items() if text is not None}
    try:
        found = {name: kind(given[key]) for name, (key, kind) in _SAMPLING_KEYS.items() if key in given}
        Sampling(**found)  # type: ignore[arg-type]  # which checks them
    except ValueError as error:  # as an OptionError is
        msg = (
            f"What the GGUF file says of sampling, {given}, is not allowed: {error} Convert it again from a model with "
            "a right `generation_config.json`."
        )
        raise ModelError(msg) from error
    return found

"""What an engine is: the protocol that all of them follow, and a base class with defaults."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from langnorm.engines.requests import Delta, Likelihood, Request, Response
from langnorm.errors import OptionError, PromptError
from langnorm.norms.layers import select_layers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.norms.identity import ModelIdentity
    from langnorm.norms.online import OnlineStatistics
    from langnorm.norms.profile import NormProfile

ABILITIES: Mapping[str, str] = {
    "distribution": "record what the distributions of tokens are like",
    "grammar": "hold an answer to a schema or force a tool call",
    "lens": "read states as distributions of the next token (`lens`)",
    "logprobs": "report log-probabilities",
    "mean_states": "record the means of hidden states",
    "norms": "record norms",
    "prompt": "record the tokens of the prompt",
    "prune": "stop single samples of a request early",
    "recursion": "run a layer again (`recursion`)",
    "states": "record hidden states",
    "steering": "change hidden states (`steering`)",
    "suppression": "change hidden states (`suppression`)",
    "updates": "record what layers add to hidden states",
    "windows": "draw samples until they suffice (`stop` of a selection)",
}
"""What an engine may be able to do beyond generating text, in words."""


@runtime_checkable
class Engine(Protocol):
    """Runs one model. All methods may be called from any thread."""

    @property
    def kind(self) -> str:
        """What the engine itself is called in messages: the name under which it is asked for, if it has one."""

    @property
    def name(self) -> str:
        """What its model is called where the caller does not name it: in messages, usage and profiles."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer, with its chat template."""

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""

    @property
    def context_length(self) -> int | None:
        """Most tokens that prompt and answer may have together; None when the model has no limit."""

    @property
    def scored_length(self) -> int | None:
        """Most tokens that `score` runs of a text, all but its last one; None for no limit."""

    @property
    def sampling_defaults(self) -> Mapping[str, Any]:
        """The model's own choice of sampling: fields of `Sampling` by name. What is missing is off, and greedy."""

    @property
    def identity(self) -> ModelIdentity:
        """What a profile of this model is tied to."""

    @property
    def profile(self) -> NormProfile | None:
        """The profile that came with the weights, if one did and it is of this model."""

    @property
    def statistics(self) -> OnlineStatistics:
        """The norms of all sequences so far."""

    def check(self, request: Request) -> None:
        """Do nothing if this engine can run a request.

        Raises:
            OptionError: It asks for something that this engine or this model cannot do; the message says why.
            PromptError: Its prompt is empty, or leaves no room for an answer.
        """

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Return the responses in the order of the requests, which share forward passes."""

    def stream(self, request: Request) -> Generator[Delta]:
        """Yield the text of a request with `n=1` as it is generated; closing the iterator stops it."""

    async def agenerate(self, requests: Sequence[Request]) -> list[Response]:
        """Return what `generate` returns; cancelling stops the generation."""

    def astream(self, request: Request) -> AsyncGenerator[Delta]:
        """Yield what `stream` yields."""

    def score(self, prompt_ids: Sequence[Sequence[int]], continuation_ids: Sequence[Sequence[int]]) -> list[Likelihood]:
        """Return how likely each continuation is after its prompt.

        Args:
            prompt_ids: Token ids of the prompts.
            continuation_ids: Token ids of what follows each of them.

        Raises:
            OptionError: There is not one continuation per prompt.
            PromptError: A prompt is empty or has a token that the model does not know, or both do not fit into the
                context.
        """

    def clear_prefix_cache(self) -> None:
        """Forget earlier prompts and answers, where some are kept for later ones to start from."""

    def expect(self, num_requests: int) -> AbstractContextManager[None]:
        """Announce this many requests from other threads or tasks, so that they are run together."""

    def preparing(self) -> AbstractContextManager[None]:
        """Announce that inside the `with` block a request is being made, which comes in a moment."""


def has_ability(engine: Engine, ability: str) -> bool:
    """Return whether an engine says that it has one of `ABILITIES`."""
    return ability in getattr(engine, "abilities", ())


class BaseEngine(ABC):
    """An engine that generates whole answers, one call after the other; whoever can do better overrides more.

    Attributes:
        abilities: Which of `ABILITIES` it has; a request that asks for others is refused by `check`.
        streams_norms: Whether its streams have the norms of tokens as they become known.
    """

    abilities: ClassVar[frozenset[str]] = frozenset()
    streams_norms: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """What the engine itself is called in messages: its class."""
        return type(self).__name__

    @property
    def name(self) -> str:
        """What its model is called where the caller does not name it: the class of the engine."""
        return type(self).__name__

    @property
    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer, with its chat template."""

    @property
    @abstractmethod
    def num_layers(self) -> int:
        """Number of decoder layers."""

    @property
    @abstractmethod
    def identity(self) -> ModelIdentity:
        """What a profile of this model is tied to."""

    @abstractmethod
    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Return the responses in the order of the requests."""

    @property
    def context_length(self) -> int | None:
        """None: the model has no limit."""
        return None

    @property
    def scored_length(self) -> int | None:
        """As many tokens as prompt and answer may have together."""
        return self.context_length

    @property
    def sampling_defaults(self) -> Mapping[str, Any]:
        """Nothing: answers are greedy unless a request says otherwise."""
        return {}

    @property
    def profile(self) -> NormProfile | None:
        """None: no profile came with the weights."""
        return None

    @cached_property
    def statistics(self) -> OnlineStatistics:
        """The norms of all sequences so far: those that the engine has added."""
        from langnorm.norms.online import OnlineStatistics

        return OnlineStatistics(self.num_layers)

    def check(self, request: Request) -> None:
        """Do nothing if this engine can run a request.

        Raises:
            OptionError: It asks for something that this engine cannot do, or for a layer outside the model.
            PromptError: Its prompt is empty, or leaves no room for an answer.
        """
        if not request.prompt_ids:
            msg = "The prompt is empty. Give at least one message with text."
            raise PromptError(msg)
        check_prompt_length(len(request.prompt_ids), self.context_length)
        if missing := sorted(_needed_abilities(request) - self.abilities):
            msg = (
                f"The engine `{type(self).__name__}` cannot {ABILITIES[missing[0]]}. Leave that out, or use "
                '`engine="transformers"`.'
            )
            raise OptionError(msg)
        if request.record and request.record.layers:
            select_layers(request.record.layers, self.num_layers)
        if request.lens_layers:
            select_layers(request.lens_layers, self.num_layers)

    def stream(self, request: Request) -> Generator[Delta]:
        """Yield the whole text of a request when it is there."""
        yield _whole(self.generate([request]))

    async def agenerate(self, requests: Sequence[Request]) -> list[Response]:
        """Return what `generate` returns, which runs on another thread."""
        return await asyncio.to_thread(self.generate, requests)

    async def astream(self, request: Request) -> AsyncGenerator[Delta]:
        """Yield what `stream` yields."""
        yield _whole(await self.agenerate([request]))

    def score(
        self,
        prompt_ids: Sequence[Sequence[int]],  # noqa: ARG002
        continuation_ids: Sequence[Sequence[int]],  # noqa: ARG002
    ) -> list[Likelihood]:
        """Raise `OptionError`: this engine cannot say how likely given texts are."""
        msg = f'The engine `{type(self).__name__}` cannot score given texts. Use `engine="transformers"` for that.'
        raise OptionError(msg)

    def clear_prefix_cache(self) -> None:  # noqa: B027 (most engines have nothing to do)
        """Do nothing: nothing is kept."""

    def expect(self, num_requests: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """Do nothing: requests are run as they come."""
        return nullcontext()

    def preparing(self) -> AbstractContextManager[None]:
        """Do nothing: requests are run as they come."""
        return nullcontext()


def check_prompt_length(num_tokens: int, context_length: int | None) -> None:
    """Raise `PromptError` if a prompt leaves no room for an answer.

    Args:
        num_tokens: Of the prompt.
        context_length: Most tokens of prompt and answer together, or None for no limit.
    """
    if context_length is not None and num_tokens >= context_length:
        msg = (
            f"The prompt has {num_tokens} tokens and leaves no room for an answer in this model's context of "
            f"{context_length}. Shorten the messages, for example with `trim_messages` of langchain-core."
        )
        raise PromptError(msg)


def check_token_ids(ids: Sequence[int], num_tokens: int) -> None:
    """Raise `PromptError` if a model does not know a token.

    Args:
        ids: The tokens.
        num_tokens: How many the model knows.
    """
    unknown = next((i for i in ids if not 0 <= i < num_tokens), None)
    if unknown is not None:
        msg = (
            f"The prompt has the token id `{unknown}`, and this model knows 0 to {num_tokens - 1}. Use the "
            "tokenizer that came with the model."
        )
        raise PromptError(msg)


def check_continuations(
    engine: BaseEngine, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], num_tokens: int
) -> None:
    """Do nothing if an engine can score continuations of prompts.

    Args:
        engine: The engine.
        prompts: Token ids of the prompts.
        continuations: Token ids of what follows each.
        num_tokens: How many tokens the model knows.

    Raises:
        OptionError: There is not one continuation per prompt.
        PromptError: A prompt is empty or has a token that the model does not know, or both do not fit into the context.
    """
    if len(prompts) != len(continuations):
        msg = f"There are {len(prompts)} prompts and {len(continuations)} continuations. Give one for each."
        raise OptionError(msg)
    for prompt, continuation in zip(prompts, continuations, strict=True):
        if not prompt:
            msg = "The prompt is empty. Give at least one token, such as that of the beginning of a text."
            raise PromptError(msg)
        check_token_ids([*prompt, *continuation], num_tokens)
        num_run = len(prompt) + max(len(continuation) - 1, 0)  # nothing follows the last token, so it is not run
        if engine.scored_length is not None and num_run > engine.scored_length:
            msg = (
                f"A prompt and its continuation need {num_run} tokens, and there is no room for more than "
                f"{engine.scored_length} in this model's context. Cut the prompt at its beginning."
            )
            raise PromptError(msg)


def _needed_abilities(request: Request) -> set[str]:
    """Return what a request asks for beyond text."""
    record, plans = request.record, request.plans
    asked = {
        "distribution": request.records_distribution,
        "grammar": request.grammar,
        "lens": request.lens_layers,
        "logprobs": request.top_logprobs is not None,
        "mean_states": request.records_mean_states,
        "norms": record and record.norms,
        "prompt": record and record.prompt,
        "states": record and record.states,
        "prune": request.pruner,
        "recursion": plans.recursion,
        "steering": plans.steering,
        "suppression": plans.suppression,
        "updates": request.update_layers,
        "windows": request.windows,
    }
    return {name for name, is_asked in asked.items() if is_asked}


def _whole(responses: Sequence[Response]) -> Delta:
    completion = responses[0].completions[0]
    return Delta(tuple((i, piece) for i, piece in enumerate(completion.pieces) if piece), completion)

"""What every engine takes and returns."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from langnorm.engines.options import Sampling
from langnorm.interventions.plan import Plans

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    from langnorm.norms.online import OnlineStatistics
    from langnorm.norms.profile import ModelIdentity, NormProfile

FinishReason = Literal["stop", "length", "pruned"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer may be.

    Attributes:
        lark: The grammar, in the Lark dialect of llguidance.
        least_tokens: Tokens that the shortest answer takes at most.
    """

    lark: str
    least_tokens: int


@dataclass(frozen=True, slots=True)
class Partial:
    """One of a request's samples as far as it has come: T tokens.

    Attributes:
        token_ids: The generated tokens.
        norms: A row for each of the first T - 1 of them with one norm per recorded layer.
        logprobs: Their log-probabilities, where the request asked for them.
        is_running: Whether it goes on.
    """

    token_ids: Sequence[int]
    norms: Sequence[Sequence[float]]
    logprobs: Sequence[float]
    is_running: bool


class Pruner(Protocol):
    """Decides which samples of a request stop before they end."""

    @property
    def every(self) -> int:
        """Number of tokens between two decisions."""

    def stopped(self, samples: Sequence[Partial]) -> Sequence[int]:
        """Return the numbers of the running ones that stop now.

        Args:
            samples: Those that have begun and were not stopped, finished or not.
        """


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and how to answer it. Requests in one batch may differ in everything.

    Attributes:
        prompt_ids: Token ids of the prompt.
        sampling: How tokens are chosen; `max_tokens` must fit into the context.
        layers: Decoder layers whose norms are recorded; empty records none.
        max_batch_size: Most sequences that this request may share a forward pass with, itself counted.
        timeout: Most seconds from now to the end, or None.
        plans: What is done to its states on the way.
        grammar: What the answer is held to, or None.
        top_logprobs: How many most likely tokens are reported beside each generated one; None reports no
            log-probabilities.
        pruner: What stops some of its `n` samples early, or None.
    """

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    layers: tuple[int, ...] = ()
    max_batch_size: int = 16
    timeout: float | None = None
    plans: Plans = field(default_factory=Plans)
    grammar: Grammar | None = None
    top_logprobs: int | None = None
    pruner: Pruner | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a generated token was, before temperature and all that chose among tokens.

    Attributes:
        logprob: Its log-probability, in nats; finite.
        top: The most likely tokens and their log-probabilities, likeliest first.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated sequence of T tokens.

    Attributes:
        token_ids: The generated tokens; an end-of-turn token is the last of them.
        pieces: The text that became decodable with each token, cut at a stop text.
        finish_reason: `"stop"` for an end-of-turn token or a stop text, `"length"` for `max_tokens`, `"pruned"` for a
            sample that the request's pruner stopped.
        norms: A row for each of the first T - 1 tokens with one norm per recorded layer. The last token is never
            run through the model.
        interventions: What was done to its states, in plain JSON types, by the name of the intervention.
        logprobs: One per generated token, where the request asked for them.
    """

    token_ids: list[int]
    pieces: list[str]
    finish_reason: FinishReason
    norms: list[list[float]] = field(default_factory=list)
    interventions: dict[str, Any] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Response:
    """The `n` completions of one request, in the order of their samples."""

    completions: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that a streamed request gained, and with the last one the whole completion.

    Attributes:
        pieces: New text with the index of the token that it belongs to.
        completion: None until the sequence is finished.
    """

    pieces: tuple[tuple[int, str], ...]
    completion: Completion | None = None


@runtime_checkable
class Engine(Protocol):
    """Runs one model. All methods may be called from any thread."""

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
    def generation_config(self) -> GenerationConfig:
        """The model's own defaults of sampling."""

    @property
    def identity(self) -> ModelIdentity:
        """What a profile of this model is tied to."""

    @property
    def profile(self) -> NormProfile | None:
        """The profile that came with the weights, if one did and it is of this model."""

    @property
    def statistics(self) -> OnlineStatistics:
        """The norms of all sequences so far."""

    @property
    def can_prune(self) -> bool:
        """Whether single samples of a request can be stopped while others go on, as its `pruner` asks."""

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Return the responses in the order of the requests, which share forward passes."""

    def stream(self, request: Request) -> Generator[Delta]:
        """Yield the text of a request with `n=1` as it is generated; closing the iterator stops it."""

    async def agenerate(self, requests: Sequence[Request]) -> list[Response]:
        """Return what `generate` returns; cancelling stops the generation."""

    def astream(self, request: Request) -> AsyncGenerator[Delta]:
        """Yield what `stream` yields."""

    def expect(self, num_requests: int) -> AbstractContextManager[None]:
        """Announce this many requests from other threads or tasks, so that they are run together."""

    def preparing(self) -> AbstractContextManager[None]:
        """Announce that inside the `with` block a request is being made, which comes in a moment."""

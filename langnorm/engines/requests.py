"""What engines are asked, and what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from langnorm.engines.options import Sampling
from langnorm.errors import OptionError
from langnorm.interventions.plan import Plans
from langnorm.norms.layers import check_layers
from langnorm.reductions import Reductions

if TYPE_CHECKING:
    from torch import Tensor

FinishReason = Literal["stop", "length", "pruned"]


@dataclass(frozen=True, slots=True)
class ReasoningMarks:
    """What stands around reasoning that comes before an answer.

    Attributes:
        opening: The mark before it.
        closing: The mark after it.
        is_open: Whether the prompt has the first one already.
    """

    opening: str
    closing: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer may be.

    Attributes:
        lark: The grammar, in the Lark dialect of llguidance.
        least_tokens: Tokens of the shortest answer, the end-of-turn token among them and reasoning not.
        reasoning: The marks of the reasoning that may come before it, or None where none may.
    """

    lark: str
    least_tokens: int
    reasoning: ReasoningMarks | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """One of a request's samples as far as it has come: T tokens.

    Attributes:
        token_ids: The generated tokens.
        norms: A row for each of the first T - 1 of them with one norm per recorded layer.
        logprobs: Their log-probabilities, where the request asked for them.
        is_running: Whether it goes on.
        reductions: What the request's record keeps of their distributions and states.
    """

    token_ids: Sequence[int]
    norms: Sequence[Sequence[float]]
    logprobs: Sequence[float]
    is_running: bool
    reductions: Reductions = field(default_factory=Reductions)


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


class Windows(Protocol):
    """Decides after how many samples of a request no more are drawn."""

    @property
    def size(self) -> int:
        """Number of samples that are drawn together, between two decisions."""

    def is_enough(self, completions: Sequence[Completion]) -> bool:
        """Return whether no more samples are needed.

        Args:
            completions: The samples so far, in their order: some whole windows.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept of a request's sequences: of the residual stream after decoder layers, and of what it leads to.

    Beside a forward pass, all of it but `states`, `prompt` and `lens` costs next to nothing, in time as in memory. A
    lens costs one unembedding per token and layer that it reads, d * V multiply-adds, and a few passes over V values;
    `benchmarks/recording.py` measures it. The last layer costs nothing.

    Attributes:
        layers: 0-based indices of the decoder layers, ascending; they may be left out where only `distribution`, `lens`
            and `mean_states` are kept.
        norms: Whether the l2 norms of the generated tokens are kept.
        states: Whether their hidden states are kept too: d values per token and layer.
        prompt: Whether the same is kept of the tokens of the prompt.
        distribution: Whether the distributions of the generated tokens are kept, as `Distribution` reduces them.
        lens: 0-based indices of the decoder layers, ascending, whose states are read as distributions of the next
            token, as `Lens` reduces them; by default none.
        updates: Whether what the layers did to the residual stream is kept, as `Updates` reduces it.
        mean_states: Whether the mean state after every decoder layer is kept, and of what enters the first one.
        live: Whether norms are handed out while a stream goes on, by an engine that `streams_norms`.

    Raises:
        OptionError: Nothing is kept, or there is no layer for what is kept of layers.
    """

    layers: tuple[int, ...] = ()
    norms: bool = True
    states: bool = False
    prompt: bool = False
    distribution: bool = False
    lens: tuple[int, ...] = ()
    updates: bool = False
    mean_states: bool = False
    live: bool = False

    def __post_init__(self) -> None:
        if self.layers or self.norms or self.states or self.updates:
            check_layers(self.layers)
        if self.lens:
            check_layers(self.lens)
        if not (self.norms or self.states or self.distribution or self.lens or self.updates or self.mean_states):
            msg = "A `Record` without `norms` and `states` keeps nothing. Set one of them, or give no record."
            raise OptionError(msg)
        if self.prompt and not (self.norms or self.states):
            msg = (
                "A `Record` keeps `norms` and `states` of a `prompt`, and has neither. Set one, or leave `prompt` out."
            )
            raise OptionError(msg)


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and how to answer it. Requests in one batch may differ in everything.

    Attributes:
        prompt_ids: Token ids of the prompt.
        sampling: How tokens are chosen; `max_tokens` must fit into the context.
        record: What is kept of its hidden states; None keeps nothing.
        max_batch_size: Most sequences that this request may share a forward pass with, itself counted.
        timeout: Most seconds to the end, or None.
        plans: What is done to its states on the way.
        grammar: What the answer is held to, or None.
        top_logprobs: How many most likely tokens are reported beside each generated one; None reports no
            log-probabilities.
        pruner: What stops some of its `n` samples early, or None.
        windows: What ends the draw of its `n` samples before all are there, or None.
        since: From when `timeout` counts, as `time.monotonic` has it; None counts from when an engine gets the request.
    """

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    record: Record | None = None
    max_batch_size: int = 16
    timeout: float | None = None
    plans: Plans = field(default_factory=Plans)
    grammar: Grammar | None = None
    top_logprobs: int | None = None
    pruner: Pruner | None = None
    windows: Windows | None = None
    since: float | None = None

    @property
    def norm_layers(self) -> tuple[int, ...]:
        """The layers whose norms it asks for, ascending."""
        return self.record.layers if self.record and self.record.norms else ()

    @property
    def state_layers(self) -> tuple[int, ...]:
        """The layers whose states it asks for, ascending."""
        return self.record.layers if self.record and self.record.states else ()

    @property
    def update_layers(self) -> tuple[int, ...]:
        """The layers whose updates it asks for, ascending."""
        return self.record.layers if self.record and self.record.updates else ()

    @property
    def streams_norms(self) -> bool:
        """Whether norms are handed out while it is streamed."""
        return self.record is not None and self.record.norms and self.record.live

    @property
    def records_distribution(self) -> bool:
        """Whether the distributions of its tokens are kept."""
        return self.record is not None and self.record.distribution

    @property
    def lens_layers(self) -> tuple[int, ...]:
        """The layers that it reads through a lens, ascending."""
        return self.record.lens if self.record else ()

    @property
    def records_mean_states(self) -> bool:
        """Whether the means of its states are kept."""
        return self.record is not None and self.record.mean_states

    @property
    def records_prompt(self) -> bool:
        """Whether something is kept of the tokens of its prompt."""
        return self.record is not None and self.record.prompt


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
class PrefixHit:
    """The beginning of a prompt that was not run again, because an earlier sequence began alike.

    Attributes:
        tokens: Its number of tokens.
        bytes: Memory that its keys and values take.
    """

    tokens: int
    bytes: int


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
        prompt_norms: A row for each token of the prompt, where the request's record asks for them.
        states: The hidden states (T - 1, L, d) of the generated tokens, in the model's dtype on the CPU, where the
            record asks for them.
        prompt_states: Those of the tokens of the prompt (P, L, d), likewise.
        interventions: What was done to its states, in plain JSON types, by the name of the intervention.
        logprobs: One per generated token, where the request asked for them.
        prefix_hit: The beginning of its prompt that an earlier sequence had run, or None.
        reductions: What the record keeps of its distributions and states beside norms.
    """

    token_ids: list[int]
    pieces: list[str]
    finish_reason: FinishReason
    norms: list[list[float]] = field(default_factory=list)
    interventions: dict[str, Any] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_norms: list[list[float]] = field(default_factory=list)
    states: Tensor | None = None
    prompt_states: Tensor | None = None
    prefix_hit: PrefixHit | None = None
    reductions: Reductions = field(default_factory=Reductions)


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a model finds a given continuation of a prompt.

    Attributes:
        token_logprobs: Log-probability of each of its tokens, in nats.
        is_greedy: Whether each token is the most likely one after those before it.
    """

    token_logprobs: tuple[float, ...]
    is_greedy: bool

    @property
    def logprob(self) -> float:
        """Log-probability of the whole continuation, in nats."""
        return sum(self.token_logprobs)


@dataclass(frozen=True, slots=True)
class Response:
    """The completions of one request, in the order of their samples: `n`, or as many as its windows took."""

    completions: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that a streamed request gained, and with the last one the whole completion.

    Attributes:
        pieces: New text with the index of the token that it belongs to.
        completion: None until the sequence is finished.
        norms: Where the request's record is live, the id and the row of norms of each token that was run since the last
            delta, in order. That of a token comes when the next one is chosen; what is left is in the completion.
    """

    pieces: tuple[tuple[int, str], ...]
    completion: Completion | None = None
    norms: tuple[tuple[int, list[float]], ...] = ()

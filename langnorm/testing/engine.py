"""An engine without weights that answers from a script."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langnorm.engines.base import ABILITIES, BaseEngine
from langnorm.engines.requests import Completion, Delta, FinishReason, Request, Response, TokenLogprob
from langnorm.errors import OptionError
from langnorm.norms.identity import ModelIdentity

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.norms.profile import NormProfile


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """What a `ScriptedEngine` says once.

    Attributes:
        text: All that the model writes, marks of reasoning and tool calls included; or its token ids.
        norms: A norm for all tokens and layers, or a row for each of the T - 1 tokens that are run, with a norm for
            each decoder layer of the engine. Rows beyond a cut are not used.
        logprobs: A log-probability for all tokens, or one for each.
        finish_reason: `"stop"` appends the end-of-turn token; `"length"` leaves the answer broken off.
        interventions: What was done to its hidden states, by the name of the intervention.
    """

    text: str | Sequence[int]
    norms: float | Sequence[Sequence[float]] = 1.0
    logprobs: float | Sequence[float] = -1.0
    finish_reason: FinishReason = "stop"
    interventions: Mapping[str, Any] = field(default_factory=dict)


class ScriptedEngine(BaseEngine):
    """An engine without weights that gives the answers of a script, in order.

    Each sample of each request takes the next answer. Stop texts, `max_tokens` and windows are obeyed; sampling,
    grammars, interventions and pruners are accepted and change nothing. It streams token by token.

    Args:
        answers: Texts, `ScriptedAnswer` objects, or exceptions, which are raised.
        tokenizer: With a chat template; None takes that of the bundled model.
        num_layers: Number of decoder layers.
        context_length: Most tokens of prompt and answer together; None is no limit.
        profile: The profile that comes with it. Make it of the engine's `identity`.
        is_repeated: Whether the script begins again at its end, which otherwise is an error.

    Attributes:
        requests: All requests so far.

    Raises:
        OptionError: There is no answer.
    """

    abilities = frozenset(ABILITIES) - {"distribution", "lens", "mean_states", "prompt", "states", "updates"}
    streams_norms = True

    def __init__(
        self,
        answers: Iterable[str | ScriptedAnswer | Exception],
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        num_layers: int = 4,
        context_length: int | None = 2048,
        profile: NormProfile | None = None,
        is_repeated: bool = False,
    ) -> None:
        self.requests: list[Request] = []
        self._answers = [ScriptedAnswer(answer) if isinstance(answer, str) else answer for answer in answers]
        if not self._answers:
            msg = "The script is empty. Give at least one answer."
            raise OptionError(msg)
        self._given_tokenizer = tokenizer
        self._num_layers = num_layers
        self._context_length = context_length
        self._profile = profile
        self._is_repeated = is_repeated
        self._num_used = 0
        self._lock = threading.Lock()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with its chat template."""
        if self._given_tokenizer is not None:
            return self._given_tokenizer
        from transformers import AutoTokenizer

        import langnorm.abacus

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(langnorm.abacus.path())
        return tokenizer

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return self._num_layers

    @property
    def context_length(self) -> int | None:
        """Most tokens that prompt and answer may have together; None is no limit."""
        return self._context_length

    @property
    def identity(self) -> ModelIdentity:
        """The same for all scripted engines with this number of layers."""
        return ModelIdentity("ScriptedEngine", "none", "float32", self.num_layers, "none")

    @property
    def profile(self) -> NormProfile | None:
        """The profile that it was given."""
        return self._profile

    @property
    def prompts(self) -> list[str]:
        """The prompts of all requests so far, as text."""
        return [str(self.tokenizer.decode(list(request.prompt_ids))) for request in self.requests]

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Return the next answers of the script.

        Raises:
            OptionError: The script has come to its end, or its norms or log-probabilities do not fit an answer.
        """
        for request in requests:
            self.check(request)
        return [Response(tuple(self._samples(request))) for request in requests]

    def _samples(self, request: Request) -> list[Completion]:
        """Return the samples of a request: all, or as many whole windows as it takes."""
        with self._lock:
            self.requests.append(request)
        num_samples = request.sampling.n
        size = request.windows.size if request.windows else num_samples
        completions: list[Completion] = []
        while len(completions) < num_samples:
            answers = self._next(min(size, num_samples - len(completions)))
            completions += [self._answered(request, answer)[1] for answer in answers]
            if request.windows and len(completions) < num_samples and request.windows.is_enough(completions):
                break
        return completions

    async def agenerate(self, requests: Sequence[Request]) -> list[Response]:
        """Return what `generate` returns, on the same thread."""
        return self.generate(requests)

    def stream(self, request: Request) -> Generator[Delta]:
        """Yield the next answer of the script token by token."""
        self.check(request)
        with self._lock:
            self.requests.append(request)
        deltas, _ = self._answered(request, self._next(1)[0])
        yield from deltas

    async def astream(self, request: Request) -> AsyncGenerator[Delta]:
        """Yield what `stream` yields."""
        for delta in self.stream(request):
            yield delta

    def _next(self, num_samples: int) -> list[ScriptedAnswer]:
        """Return an answer for each of so many samples."""
        answers = []
        with self._lock:
            for _ in range(num_samples):
                if self._num_used == len(self._answers) and not self._is_repeated:
                    msg = (
                        f"All `{len(self._answers)}` answers of the script are used up. Give more of them, or "
                        "`is_repeated=True` to begin again."
                    )
                    raise OptionError(msg)
                answer = self._answers[self._num_used % len(self._answers)]
                self._num_used += 1
                if isinstance(answer, Exception):
                    raise answer
                answers.append(answer)
        return answers

    def _answered(self, request: Request, answer: ScriptedAnswer) -> tuple[list[Delta], Completion]:
        """Return an answer as it is streamed and as a whole; the last delta has the whole too."""
        from langnorm.text.detokenizer import Detokenizer

        ids = self._token_ids(answer)
        text = Detokenizer(self.tokenizer, request.sampling.stop)
        taken = []  # after so many tokens
        for num_tokens, token_id in enumerate(ids[: self._limit(request)], 1):
            text.add(token_id)
            if text.is_stopped:
                break
            if new := text.take():
                taken.append((num_tokens, tuple(new)))
        text.finish()
        num_tokens = len(text.pieces)
        reason: FinishReason = "length"
        if text.is_stopped:
            reason = "stop"
        elif num_tokens == len(ids):
            reason = answer.finish_reason
        completion = Completion(
            token_ids=ids[:num_tokens],
            pieces=text.pieces,
            finish_reason=reason,
            norms=self._norms(answer, request.norm_layers, ids[:num_tokens]),
            interventions=dict(answer.interventions),
            logprobs=_logprobs(answer, request, ids[:num_tokens]),
        )
        deltas, num_sent = [], 0
        for num_tokens, pieces in taken:
            rows = completion.norms[num_sent : num_tokens - 1] if request.streams_norms else []
            deltas.append(Delta(pieces, norms=tuple(zip(ids[num_sent:], rows, strict=False))))
            num_sent += len(rows)
        return [*deltas, Delta(tuple(text.take(is_last=True)), completion)], completion

    def _token_ids(self, answer: ScriptedAnswer) -> list[int]:
        if not isinstance(answer.text, str):
            return list(answer.text)
        ids: list[int] = self.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
        end_id = self.tokenizer.eos_token_id
        return [*ids, int(end_id)] if answer.finish_reason == "stop" and isinstance(end_id, int) else ids

    def _limit(self, request: Request) -> int | None:
        limits = [request.sampling.max_tokens]
        if self.context_length is not None:
            limits.append(self.context_length - len(request.prompt_ids))
        return min((limit for limit in limits if limit is not None), default=None)

    def _norms(self, answer: ScriptedAnswer, layers: Sequence[int], ids: Sequence[int]) -> list[list[float]]:
        """Return a row for each token that was run, with the norms of the layers that are asked for."""
        num_rows = len(ids) - 1
        if not layers:
            return []
        if isinstance(answer.norms, int | float):
            rows = [[float(answer.norms)] * len(layers)] * num_rows
        elif len(answer.norms) < num_rows or any(len(row) != self.num_layers for row in answer.norms):
            msg = (
                f"The `norms` of a scripted answer do not fit. Give `{num_rows}` rows or more, one for each token but "
                f"the last, with `{self.num_layers}` norms each, one for each decoder layer."
            )
            raise OptionError(msg)
        else:
            rows = [[float(row[layer]) for layer in layers] for row in answer.norms[:num_rows]]
        if rows:
            import torch

            self.statistics.update(torch.tensor(rows)[:, None], layers, [num_rows], [ids])
        return rows


def _logprobs(answer: ScriptedAnswer, request: Request, ids: Sequence[int]) -> list[TokenLogprob]:
    if request.top_logprobs is None:
        return []
    logprobs = answer.logprobs
    values = [float(logprobs)] * len(ids) if isinstance(logprobs, int | float) else list(logprobs)
    if len(values) < len(ids):
        msg = f"A scripted answer has `{len(values)}` `logprobs`. Give one for each of its `{len(ids)}` tokens."
        raise OptionError(msg)
    return [
        TokenLogprob(value, ((token_id, value),) if request.top_logprobs else ())
        for token_id, value in zip(ids, values, strict=False)
    ]

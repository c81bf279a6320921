"""How likely vLLM finds given texts: their tokens are a prompt to it, whose log-probabilities it reports."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langnorm.engines.requests import Likelihood

if TYPE_CHECKING:
    from langnorm.engines.vllm.core import NewTokens, VllmCore


@dataclass(eq=False, slots=True)
class PendingText:
    """A text to be scored.

    Attributes:
        key: Its name.
        prompt_ids: Tokens of its beginning; there is at least one.
        continuation_ids: Tokens of what is scored; there is at least one.
        future: The likelihood, or the error that ended it.
        is_cancelled: Set from any thread; the text is then given up within one step.
    """

    key: str
    prompt_ids: Sequence[int]
    continuation_ids: Sequence[int]
    future: Future[Likelihood] = field(default_factory=Future)
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Give the text up within one step, or before it is run."""
        self.is_cancelled = True


class TextScorer:
    """The texts of one engine that are to be scored, beside its sequences.

    Args:
        core: The engine; only its worker calls it, and the methods here but `submit`.
    """

    def __init__(self, core: VllmCore) -> None:
        self._core = core
        self._waiting: deque[PendingText] = deque()
        self._running: dict[str, PendingText] = {}

    @property
    def is_busy(self) -> bool:
        """Whether there are texts."""
        return bool(self._waiting or self._running)

    def submit(self, texts: Sequence[PendingText]) -> None:
        """Queue texts."""
        self._waiting.extend(texts)

    def begin(self) -> None:
        """Give up texts that nobody waits for, and let those that wait enter."""
        cancelled = [text for text in self._running.values() if text.is_cancelled]
        self._core.abort([text.key for text in cancelled])
        for text in cancelled:
            del self._running[text.key]
            text.future.set_exception(CancelledError())
        while self._waiting:
            text = self._waiting.popleft()
            if text.is_cancelled:
                text.future.set_exception(CancelledError())
                continue
            try:
                self._core.add_text(text.key, text.prompt_ids, text.continuation_ids)
            except Exception as error:  # noqa: BLE001
                text.future.set_exception(error)
            else:
                self._running[text.key] = text

    def take(self, gained: NewTokens) -> bool:
        """Return whether something belongs to a text, which has ended with it."""
        text = self._running.pop(gained.key, None)
        if text is None:
            return False
        if gained.error:
            text.future.set_exception(gained.error)
            return True
        try:
            text.future.set_result(_read_likelihood(text, gained))
        except Exception as error:  # noqa: BLE001
            text.future.set_exception(error)
        return True

    def fail(self, error: BaseException) -> list[str]:
        """End the texts that are running with an error, and return their keys."""
        running, self._running = self._running, {}
        for text in running.values():
            text.future.set_exception(error)
        return list(running)

    def cancel(self) -> None:
        """Cancel all texts."""
        for text in (*self._waiting, *self._running.values()):
            text.cancel()


def _read_likelihood(text: PendingText, gained: NewTokens) -> Likelihood:
    """Return the likelihood of a text: of all tokens but the last one as a prompt, and of that one as an answer."""
    *before, last = text.continuation_ids
    first = len(text.prompt_ids)
    entries = [*(gained.prompt_logprobs[first + number] for number in range(len(before))), gained.logprobs[0]]
    pairs = [_read_entry(token, entry) for token, entry in zip([*before, last], entries, strict=True)]
    return Likelihood(tuple(logprob for logprob, _ in pairs), all(is_likeliest for _, is_likeliest in pairs))


def _read_entry(token: int, entry: Mapping[int, Any]) -> tuple[float, bool]:
    """Return the log-probability of a token, and whether none is likelier; vLLM lists it with the likeliest one."""
    return entry[token].logprob, entry[token].logprob >= max(other.logprob for other in entry.values())

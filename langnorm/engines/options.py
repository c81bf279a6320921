"""How a request chooses its tokens: frozen, checked when it is made, free of torch, transformers and langchain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langnorm.checks import check_integer, check_number, check_text, refuse

_COLDEST = 1e-5  # below, logits divided by the temperature overflow, and only one token is left anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen and when to stop.

    Attributes:
        temperature: 0 takes the most likely token, as do values below 1e-5; above, the logits are divided by it.
        top_p: Keeps the smallest set of tokens whose probability reaches this, in (0, 1].
        top_k: Keeps this many most likely tokens; 0 keeps all.
        min_p: Keeps tokens at least this share as likely as the most likely one, in [0, 1].
        repetition_penalty: Above 1 makes tokens that occurred less likely.
        max_tokens: Most tokens to generate; None means as many as the context holds.
        stop: Texts that end the answer and are cut from it.
        seed: Makes the sampled tokens reproducible; None draws a new seed.
        n: Number of independent completions.

    Raises:
        OptionError: A value is outside what is allowed.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, low=0, allowed="0 (greedy) or above")
        check_number("top_p", self.top_p, low=0, high=1, is_low_open=True, allowed="above 0, up to 1 (off)")
        check_integer("top_k", self.top_k, low=0, allowed="0 (off) or above")
        check_number("min_p", self.min_p, low=0, high=1, allowed="between 0 (off) and 1")
        check_number(
            "repetition_penalty",
            self.repetition_penalty,
            low=0,
            is_low_open=True,
            allowed="above 0; 1 is off",
        )
        if self.max_tokens is not None:
            check_integer("max_tokens", self.max_tokens, low=1, allowed="1 or above, or None for no limit")
        if self.seed is not None:
            check_integer("seed", self.seed, allowed="an integer, or None for a new one")
        check_integer("n", self.n, low=1, allowed="1 or above")
        object.__setattr__(self, "repetition_penalty", float(self.repetition_penalty))  # transformers takes no integer
        object.__setattr__(self, "stop", _stop_texts(self.stop))

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is taken, so that all samples are the same."""
        return self.temperature < _COLDEST


def _stop_texts(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) and text for text in texts):
        refuse("stop", value, "a text or a list of texts, none of them empty")
    check_text("stop", texts)
    return tuple(texts)

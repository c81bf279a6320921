"""What a request may ask for: frozen, checked when it is made, free of torch, transformers and langchain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from langnorm.answers import check_answer_form, name_of
from langnorm.checks import check_choice, check_integer, check_number, refuse
from langnorm.errors import OptionError, closest
from langnorm.pruning import RULES, Pruning
from langnorm.scores import DEFAULT_SCORE, SCORES, Score, weighted_scores

Vote = Literal["none", "majority", "weighted", "filtered"]
VOTES: tuple[str, ...] = get_args(Vote)

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
        object.__setattr__(self, "stop", _stop_texts(self.stop))

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is taken, so that all samples are the same."""
        return self.temperature < _COLDEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    r"""Samples several responses to a prompt and keeps the best.

    Attributes:
        n: How many are sampled, in one call of the engine.
        score: By what they are ranked: a name of `SCORES`, a function of a `Sample`, weights of several by name (they
            are standardised over the responses), or None for no score: then answers with more support are ahead.
        vote: `"none"` takes the best score. `"majority"` takes the answer that most give (self-consistency), the best
            score deciding between equals. `"weighted"` weighs each vote by exp(z), z being the score standardised over
            those that vote; one that has none has no weight. `"filtered"` counts only the votes of the `keep` best.
        answer: How answers are read for votes: `"number"` is the last number, `"boxed"` the last `\boxed{...}`,
            `"line"` the last line, `"auto"` the first of JSON, boxed, number and line that there is; or a function of
            the text, or an output parser. Tool calls are an answer of their own.
        keep: Share of the responses with a vote, rounded up, whose votes count under `"filtered"`; in (0, 1].
        near: Scores that differ by no more than this many of their standard deviations are as good as tied: then the
            answer with more support is ahead. 0 takes scores at their word.
        prune: Stops responses early: None, `"halving"`, `"threshold"`, a `Pruning` or a dict of its fields.

    Raises:
        OptionError: A value is not allowed.
    """

    n: int = 8
    score: Any = DEFAULT_SCORE
    vote: Vote = "none"
    answer: Any = "auto"
    keep: float = 0.5
    near: float = 0.1
    prune: Any = None

    def __post_init__(self) -> None:
        check_integer("n", self.n, low=1, allowed="1 or above")
        check_choice("vote", self.vote, VOTES)
        weighted_scores(self.score)  # this is the check
        check_answer_form(self.answer)
        check_number("keep", self.keep, low=0, high=1, is_low_open=True, allowed="above 0, up to 1 (all)")
        check_number("near", self.near, low=0, allowed="0 (off) or above")
        if not (self.prune is None or isinstance(self.prune, str | Mapping | Pruning)):
            words = " or ".join(f'"{rule}"' for rule in RULES)
            refuse("prune", self.prune, f"{words}, a Pruning, a dict of its fields, or None")
        rule = {"rule": self.prune} if isinstance(self.prune, str) else self.prune
        object.__setattr__(self, "prune", option_of(Pruning, "prune", rule))
        if self.prune and self.score is None:
            msg = "`prune` stops responses by their score, and `score=None`. Name a score, or leave `prune` out."
            raise OptionError(msg)

    @property
    def needs_norms(self) -> bool:
        """Whether the score reads norms."""
        return any(score.needs_norms or _is_own(score) for score, _ in weighted_scores(self.score))

    @property
    def needs_thresholds(self) -> bool:
        """Whether the score compares norms with thresholds."""
        return any(score.needs_thresholds for score, _ in weighted_scores(self.score))

    @property
    def needs_logprobs(self) -> bool:
        """Whether the score reads log-probabilities."""
        return any(score.needs_logprobs or _is_own(score) for score, _ in weighted_scores(self.score))

    @property
    def needs_texts(self) -> bool:
        """Whether the score reads the texts of tokens."""
        return any(score.needs_texts or _is_own(score) for score, _ in weighted_scores(self.score))

    def to_dict(self) -> dict[str, Any]:
        """Return the options in plain JSON types, functions by their names."""
        names = {score.name: weight for score, weight in weighted_scores(self.score)}
        is_single = not isinstance(self.score, Mapping)
        return {
            "n": self.n,
            "score": next(iter(names), None) if is_single else names,
            "vote": self.vote,
            "answer": name_of(self.answer),
            "keep": self.keep,
            "near": self.near,
            "prune": None if self.prune is None else asdict(self.prune),
        }


def _is_own(score: Score) -> bool:
    """Return whether a score is a function of the user's, which may read anything."""
    return SCORES.get(score.name) is not score


Kind = TypeVar("Kind")


def option_of(kind: type[Kind], name: str, value: Any) -> Kind | None:
    """Return the options that a user means by `value`: options, a dict of their fields, or None.

    Raises:
        OptionError: It is something else, or a field is unknown or has a value that is not allowed.
    """
    if value is None or isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        msg = f"`{name}={value!r}` is not allowed. Use {kind.__name__}(...), a dict of its fields, or None."
        raise OptionError(msg)
    allowed = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for given in value:
        if given not in allowed:
            hint = closest(str(given), allowed) or f" Use {', '.join(f'`{option}`' for option in allowed)}."
            msg = f"`{name}` has no option `{given}`.{hint}"
            raise OptionError(msg)
    return kind(**value)


def _stop_texts(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) and text for text in texts):
        refuse("stop", value, "a text or a list of texts, none of them empty")
    return tuple(texts)

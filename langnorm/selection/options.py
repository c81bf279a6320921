"""How the best of n answers is chosen: frozen, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast, get_args

from langnorm.checks import build_options, check_choice, check_integer, check_number, refuse
from langnorm.errors import OptionError
from langnorm.scores.registry import (
    COMBINATIONS,
    DEFAULT_SCORE,
    READABLE_SCORE,
    SCORES,
    Combination,
    ScoreOption,
    spelled_out,
    weighted_scores,
)
from langnorm.scores.score import Score
from langnorm.selection.answers import AnswerForm, check_answer_form, name_of_form
from langnorm.selection.pruning import RULES, Pruning, Rule
from langnorm.selection.stopping import DEFAULT_WINDOW, Stopping, StopRule

Vote = Literal["none", "majority", "weighted", "filtered"]
VOTES: tuple[str, ...] = get_args(Vote)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    r"""Samples several responses to a prompt and keeps the best.

    Attributes:
        n: How many are sampled, in one call of the engine; with `stop`, how many at most.
        score: By what they are ranked: a name of `SCORES`, a function of a `Sample`, weights of several by name (they
            are combined), or None for no score: then answers with more support are ahead. `"default"` is the weights
            that chose best on real models, `DEFAULT_WEIGHTS` of `langnorm.scores.registry`.
        combine: What is added up where `score` has weights: `"scores"`, each standardised over the responses, or
            `"ranks"` (Borda): n for the best of n, 1 for the last, ties averaged.
        vote: `"none"` takes the best score. `"majority"` takes the answer that most give (self-consistency), the best
            score deciding between equals. `"weighted"` weighs each vote by exp(z), z being the score standardised over
            those that vote; one that has none has no weight. `"filtered"` counts only the votes of the `keep` best.
        answer: How answers are read for votes: `"auto"` is the stated answer: the text where it is one value or JSON,
            the last `\boxed{...}`, what follows `####` or "the answer is", JSON in a block of code, or what the last
            sentence comes to. `"number"` is the stated number, `"boxed"` only what is boxed, `"line"` the last line;
            or a function of the text, or an output parser. Tool calls are an answer of their own. Equal values are
            equal answers however they are written, and units are left out.
        keep: Share of the responses with a vote, rounded up, whose votes count under `"filtered"`; in (0, 1].
        near: Scores that differ by no more than this many of their standard deviations are as good as tied: then the
            answer with more support is ahead. 0 takes scores at their word.
        prune: Stops responses early: None, `"halving"`, `"threshold"`, a `Pruning` or a dict of its fields.
        stop: Draws responses in windows until they settle the answer, which then is kept whatever `vote` says: None
            draws all n, `"unanimous"` stops at a window that agrees, `"beta"` where the most frequent answer leads
            beyond doubt, `"confidence"` where it does with its scores counted in. See `Stopping`.
        window: How many are drawn between two decisions of `stop`.
        stop_above: How sure `"beta"` and `"confidence"` must be, above 0 and below 1; None for 0.95.

    Raises:
        OptionError: A value is not allowed.
    """

    n: int = 8
    score: ScoreOption = DEFAULT_SCORE
    combine: Combination = "scores"
    vote: Vote = "none"
    answer: AnswerForm = "auto"
    keep: float = 0.5
    near: float = 0.8
    prune: Pruning | Rule | Mapping[str, Any] | None = None
    stop: StopRule | None = None
    window: int = DEFAULT_WINDOW
    stop_above: float | None = None

    def __post_init__(self) -> None:
        check_integer("n", self.n, low=1, allowed="1 or above")
        check_choice("vote", self.vote, VOTES)
        check_choice("combine", self.combine, COMBINATIONS)
        weighted_scores(self.score)  # this is the check
        check_answer_form(self.answer)
        check_number("keep", self.keep, low=0, high=1, is_low_open=True, allowed="above 0, up to 1 (all)")
        check_number("near", self.near, low=0, allowed="0 (off) or above")
        prune: object = self.prune
        if not (prune is None or isinstance(prune, str | Mapping | Pruning)):
            words = " or ".join(f'"{rule}"' for rule in RULES)
            refuse("prune", prune, f"{words}, a Pruning, a dict of its fields, or None")
        rule = {"rule": prune} if isinstance(prune, str) else prune
        object.__setattr__(self, "prune", build_options(Pruning, "prune", rule))
        if self.prune and self.score is None:
            msg = "`prune` stops responses by their score, and `score=None`. Name a score, or leave `prune` out."
            raise OptionError(msg)
        self._check_stop()

    def _check_stop(self) -> None:
        check_integer("window", self.window, low=1, allowed="1 or above")
        if self.stopping is None:
            if self.stop_above is not None:
                refuse("stop_above", self.stop_above, "None without `stop`, or say by what rule to stop")
        elif self.prune:
            msg = (
                "`prune` compares all n responses while they run, and `stop` draws them window by window. Leave one of "
                "the two out."
            )
            raise OptionError(msg)
        elif self.stop == "confidence" and self.score is None:
            msg = '`stop="confidence"` weighs answers by their score, and `score=None`. Name a score, or use "beta".'
            raise OptionError(msg)

    @property
    def needs_norms(self) -> bool:
        """Whether the score reads norms, or may: what a function of the user's reads is not known."""
        return any(score.needs_norms or _is_users_own(score) for score, _ in weighted_scores(self.score))

    @property
    def reads_norms(self) -> bool:
        """Whether the score is known to read norms."""
        return any(score.needs_norms for score, _ in weighted_scores(self.score))

    @property
    def needs_thresholds(self) -> bool:
        """Whether the score compares norms with thresholds."""
        return any(score.needs_thresholds for score, _ in weighted_scores(self.score))

    @property
    def needs_logprobs(self) -> bool:
        """Whether the score reads log-probabilities."""
        return any(score.needs_logprobs or _is_users_own(score) for score, _ in weighted_scores(self.score))

    @property
    def needs_texts(self) -> bool:
        """Whether the score reads the texts of tokens."""
        return any(score.needs_texts or _is_users_own(score) for score, _ in weighted_scores(self.score))

    @property
    def needs_relative_norms(self) -> bool:
        """Whether the score compares norms with the usual ones of the same tokens."""
        return any(score.needs_relative_norms or _is_users_own(score) for score, _ in weighted_scores(self.score))

    @property
    def needs_distribution(self) -> bool:
        """Whether the score reads what was kept of the distributions of tokens; one of the user's must say so."""
        return any(score.needs_distribution for score, _ in weighted_scores(self.score))

    @property
    def needs_lens(self) -> bool:
        """Whether the score reads how late in the stack tokens settled; one of the user's must say so."""
        return any(score.needs_lens for score, _ in weighted_scores(self.score))

    @property
    def needs_updates(self) -> bool:
        """Whether the score reads what layers add to hidden states; one of the user's must say so."""
        return any(score.needs_updates for score, _ in weighted_scores(self.score))

    @property
    def needs_mean_states(self) -> bool:
        """Whether the score reads the means of hidden states; one of the user's must say so."""
        return any(score.needs_mean_states for score, _ in weighted_scores(self.score))

    @property
    def pruning(self) -> Pruning | None:
        """When responses are stopped early, or None where none is: what `prune` means."""
        return cast("Pruning | None", self.prune)  # since the check

    @property
    def stopping(self) -> Stopping | None:
        """When no more responses are drawn, or None where all n are: what `stop` means."""
        return None if self.stop is None else Stopping(rule=self.stop, window=self.window, above=self.stop_above)

    @property
    def may_stop(self) -> bool:
        """Whether fewer than n responses may be drawn: there is a rule for it, and n are more than a window."""
        return self.stop is not None and self.n > self.window

    def without_distributions(self) -> Selection:
        """Return the same where nobody keeps what `"default"` reads."""
        return replace(self, score=READABLE_SCORE) if self.score == DEFAULT_SCORE else self

    def to_dict(self) -> dict[str, Any]:
        """Return the options in plain JSON types, functions by their names."""
        names = {score.name: weight for score, weight in weighted_scores(self.score)}
        is_single = not isinstance(spelled_out(self.score), Mapping)
        return {
            "n": self.n,
            "score": next(iter(names), None) if is_single else names,
            "combine": self.combine,
            "vote": self.vote,
            "answer": name_of_form(self.answer),
            "keep": self.keep,
            "near": self.near,
            "prune": None if self.pruning is None else asdict(self.pruning),
            "stop": None if self.stopping is None else asdict(self.stopping),
        }


def _is_users_own(score: Score) -> bool:
    """Return whether a score is a function of the user's that may read anything: nothing else is said of it."""
    return SCORES.get(score.name) != score and not score.says_what_it_reads


def resolve_selection(selection: Selection | Mapping[str, Any] | None, options: Mapping[str, Any]) -> Selection:
    """Return a selection, or the one of these options where none is given.

    Raises:
        OptionError: Both are given, or an option is unknown or has a value that is not allowed.
    """
    if selection is not None and options:
        given = ", ".join(f"`{name}`" for name in options)
        msg = f"`selection` is given, and {given} beside it. Give all options in the selection, or none there."
        raise OptionError(msg)
    chosen = build_options(Selection, "selection", options if selection is None else selection)
    assert chosen, "it is None for None alone"
    return chosen

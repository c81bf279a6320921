"""The causal check: does suppressing states of high norm cost more right answers than suppressing as many others?

Of each problem the model answers four times with the same draws: as it is; with the states of high norm shrunk; and, as
controls, with as many states shrunk at tokens drawn at random and at random tokens of the same class (numbers, words,
...). The controls take a mask: which layers are shrunk together at one token is as in the run they control, and only
the tokens are others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langnorm.checks import check_choice, check_integer, check_number, refuse
from langnorm.errors import OptionError
from langnorm.interventions.options import Suppression, check_layers
from langnorm.norms.layers import LayerSelection, select_layers
from langnorm.probes.answering import Answered, ask_all
from langnorm.probes.causal_masks import class_of, draw_mask
from langnorm.probes.causal_store import CausalStore, Outcome
from langnorm.probes.problems import Problem, check_seeds, seed_of

if TYPE_CHECKING:
    from langnorm.chat_models import ChatLangNorm

CONTROLS = ("random", "same_class")
_ROUNDS = 8  # in which a control's mask is drawn again because its answer ended before the mask did


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalCheck:
    """What is checked.

    Attributes:
        layers: Selections of layers; each is suppressed by itself.
        quantiles: The dose: which share of the norms of a layer, in answers without suppression, is not high.
        controls: Which of `CONTROLS` suppression is compared with; fewer take less time.
        action: As of `Suppression`.
        factor: As of `Suppression`.
        seeds: Each problem is answered with each of them.
        temperature: Of the answers; 0 is greedy, and seeds then differ in the controls alone.
        max_tokens: Most tokens of an answer.
    """

    layers: Sequence[LayerSelection] = ("late",)
    quantiles: Sequence[float] = (0.9, 0.99)
    controls: Sequence[str] = CONTROLS
    action: str = "mul"
    factor: float = 0.1
    seeds: Sequence[int] = (0, 1, 2)
    temperature: float = 0.7
    max_tokens: int = 512

    def __post_init__(self) -> None:
        for name in ("layers", "quantiles", "controls", "seeds"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence) or not value:
                refuse(name, value, "a list of at least one", "causal check")
            if any(item in value[:i] for i, item in enumerate(value)):
                refuse(name, value, "each of them once", "causal check")
            object.__setattr__(self, name, tuple(value))
        for layers in self.layers:
            check_layers("layers", layers, owner="causal check")
        for quantile in self.quantiles:
            check_number("quantiles", quantile, low=0, high=1, is_low_open=True, is_high_open=True)
        for control in self.controls:
            check_choice("controls", control, CONTROLS)
        check_seeds(self.seeds)
        check_choice("action", self.action, ("mul", "clamp"))
        check_number("factor", self.factor, low=0, high=1, is_high_open=True)
        Suppression(action=self.action, factor=self.factor)  # type: ignore[arg-type]  # whether the two go together
        check_number("temperature", self.temperature, low=0)
        check_integer("max_tokens", self.max_tokens, low=2)


@dataclass(frozen=True, slots=True)
class Arm:
    """One dose: some layers and a quantile.

    Attributes:
        layers: The layers.
        quantile: Which share of their norms is not high.
        thresholds: `tau_l` of each.
        outcomes: Of `"high"` and of each control, of all problems with the first seed, then with the next.
    """

    layers: tuple[int, ...]
    quantile: float
    thresholds: tuple[float, ...]
    outcomes: Mapping[str, Sequence[Outcome]]


@dataclass(frozen=True, slots=True)
class CausalResult:
    """What a check found.

    Attributes:
        check: What was checked.
        num_tasks: Number of problems.
        baseline: Outcomes without suppression, of all problems with the first seed, then with the next.
        arms: The doses.
    """

    check: CausalCheck
    num_tasks: int
    baseline: Sequence[Outcome]
    arms: Sequence[Arm]


def run_causal_check(
    chat: ChatLangNorm,
    tasks: Sequence[Problem],
    check: CausalCheck | None = None,
    *,
    store: Path | None = None,
    about: Mapping[str, Any] | None = None,
    is_quiet: bool = False,
) -> CausalResult:
    """Return what suppression does to the answers of a chat model.

    Args:
        chat: The chat model.
        tasks: The problems, two at least.
        check: What is checked.
        store: A file of what is done so far; a check that was stopped goes on from it.
        about: What the answers depend on beside `check`, in plain JSON types, such as the model's name.
        is_quiet: Whether there is no progress bar.

    Raises:
        OptionError: There are too few problems, or the file is of another check.
    """
    from tqdm import tqdm

    check = check or CausalCheck()
    if len(tasks) < 2:
        refuse("tasks", len(tasks), "two problems or more, or there is no interval", "causal check")
    num_layers = chat.loaded_engine().num_layers
    selections = [select_layers(layers, num_layers) for layers in check.layers]
    every = tuple(sorted({layer for layers in selections for layer in layers}))
    decisive = {name: value for name, value in asdict(check).items() if name != "controls"}
    done = CausalStore(store, {**decisive, "tasks": [task.decisive for task in tasks], **(about or {})})
    arms = [(layers, quantile) for layers in selections for quantile in check.quantiles]
    total = len(tasks) * len(check.seeds) * (1 + len(arms) * (1 + len(check.controls)))
    with tqdm(total=total, unit="answer", disable=is_quiet) as bar:
        runner = _Runner(chat, tasks, check, every, done, bar.update)
        baseline = runner.baseline()
        found = []
        for layers, quantile in arms:
            place = check.quantiles.index(quantile)
            taus = tuple(done.taus[layer][place] for layer in layers)
            found.append(Arm(layers, quantile, taus, runner.arm(layers, quantile, taus, baseline)))
    return CausalResult(check, len(tasks), baseline, found)


class _Runner:
    """Answers the problems under all conditions."""

    def __init__(
        self,
        chat: ChatLangNorm,
        tasks: Sequence[Problem],
        check: CausalCheck,
        layers: tuple[int, ...],
        store: CausalStore,
        on_progress: Callable[[int], Any],
    ) -> None:
        self._chat, self._tasks, self._check, self._layers = chat, tasks, check, layers
        self._store, self._on_progress = store, on_progress
        self._num_shown = 0  # of the answers of a condition, those that the progress bar has

    def _asks(self) -> Iterator[tuple[int, int, Problem]]:
        """Yield the number of an answer, its seed and its problem."""
        for place, seed in enumerate(self._check.seeds):
            for number, task in enumerate(self._tasks):
                yield place * len(self._tasks) + number, seed_of(seed, number), task

    def _ask(self, suppressions: Mapping[int, Suppression | None], layers: Sequence[int]) -> dict[int, Answered]:
        """Return the answers of some numbers, each with its own suppression."""
        common = {"layers": list(layers), "temperature": self._check.temperature, "max_tokens": self._check.max_tokens}
        asked = {
            number: task.asked({**common, "seed": seed, "suppression": suppressions[number]})
            for number, seed, task in self._asks()
            if number in suppressions
        }
        return dict(zip(asked, ask_all(self._chat, list(asked.values()), self._show), strict=True))

    def _show(self, num_new: int) -> None:
        """Let the progress bar go on; answers that are drawn again do not count."""
        num_new = min(num_new, len(self._tasks) * len(self._check.seeds) - self._num_shown)
        self._num_shown += num_new
        self._on_progress(num_new)

    def _show_rest(self) -> None:
        self._show(len(self._tasks) * len(self._check.seeds))
        self._num_shown = 0

    def _outcome(self, number: int, answered: Answered, num_planned: int | None = None) -> Outcome:
        report = (answered.trace.suppression or {}).get("acted_on", {})
        return Outcome(
            is_right=self._tasks[number % len(self._tasks)].is_right(str(answered.message.text)),
            is_cut=answered.is_cut,
            num_run=answered.num_run,
            shrunk={int(layer): steps for layer, steps in report.items()},
            num_planned=num_planned,
            classes=[class_of(text) for text in (answered.trace.token_texts or ())[: answered.num_run]],
        )

    def baseline(self) -> list[Outcome]:
        """Return the outcomes without suppression, and have the thresholds stored."""
        if stored := self._store.get("baseline"):
            self._show_rest()
            return stored
        numbers = [number for number, _, _ in self._asks()]
        answers = self._ask(dict.fromkeys(numbers), self._layers)
        rows = [row for answered in answers.values() for row in answered.trace.token_norms or ()]
        if not rows:
            msg = "No answer has a token that was run, so there are no norms. Give other problems or more `max_tokens`."
            raise OptionError(msg)
        taus = np.quantile(np.array(rows), self._check.quantiles, axis=0).T
        outcomes = [self._outcome(number, answers[number]) for number in numbers]
        self._store.put("baseline", outcomes, dict(zip(self._layers, taus.tolist(), strict=True)))
        self._show_rest()
        return outcomes

    def arm(
        self, layers: tuple[int, ...], quantile: float, taus: tuple[float, ...], baseline: Sequence[Outcome]
    ) -> dict[str, list[Outcome]]:
        """Return the outcomes of one dose: with high norms suppressed, and of each control."""
        found: dict[str, list[Outcome]] = {}
        for condition in ("high", *self._check.controls):
            name = f"{condition}/{','.join(map(str, layers))}/{quantile}"
            outcomes = self._store.get(name)
            if outcomes is None:
                if condition == "high":
                    outcomes = self._high(layers, taus, len(baseline))
                else:
                    outcomes = self._control(layers, taus, baseline, found["high"], name)
                self._store.put(name, outcomes)
            self._show_rest()
            found[condition] = outcomes
        return found

    def _suppression(self, layers: tuple[int, ...], taus: tuple[float, ...], **options: Any) -> Suppression:
        threshold = {"rule": "fixed", "values": dict(zip(layers, taus, strict=True))}
        check: Any = self._check
        return Suppression(layers=layers, threshold=threshold, action=check.action, factor=check.factor, **options)

    def _high(self, layers: tuple[int, ...], taus: tuple[float, ...], num_answers: int) -> list[Outcome]:
        answers = self._ask(dict.fromkeys(range(num_answers), self._suppression(layers, taus)), layers[-1:])
        return [self._outcome(number, answers[number]) for number in range(num_answers)]

    def _control(
        self,
        layers: tuple[int, ...],
        taus: tuple[float, ...],
        baseline: Sequence[Outcome],
        high: Sequence[Outcome],
        name: str,
    ) -> list[Outcome]:
        """Return the outcomes with masks; where an answer ends before its mask does, the mask is drawn again."""
        is_matched = name.startswith("same_class")
        found = dict(enumerate(baseline))  # where nothing was high, nothing is masked, and the answer is the same
        left = [number for number, outcome in enumerate(high) if outcome.num_shrunk]
        texts = {number: baseline[number].classes for number in left}
        for attempt in range(_ROUNDS):
            masks = {}
            for number in left:
                rng = random.Random(f"{name}/{number}/{attempt}")
                masks[number] = draw_mask(high[number], texts[number], layers, rng, is_matched=is_matched)
            suppressions = {
                number: self._suppression(layers, taus, mode="mask", mask=mask) if any(mask) else None
                for number, mask in masks.items()
            }
            for number, answered in self._ask(suppressions, layers[-1:]).items():
                found[number] = self._outcome(number, answered, high[number].num_shrunk)
                texts[number] = found[number].classes
            left = [number for number in left if found[number].num_shrunk < high[number].num_shrunk]
            if not left:
                break
        return [found[number] for number in range(len(baseline))]

"""Fits the distribution of a model's norms to what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from langnorm.checks import check_integer
from langnorm.errors import OptionError
from langnorm.norms.calibration_checkpoint import Checkpoint, describe_work
from langnorm.norms.calibration_report import CalibrationReport, Tally, build_report
from langnorm.norms.layers import LayerSelection, select_layers
from langnorm.norms.loops import are_looping
from langnorm.norms.recorded_steps import RecordedSteps
from langnorm.norms.token_sums import TokenSums

if TYPE_CHECKING:
    from langnorm.norms.identity import ModelIdentity
    from langnorm.norms.sketch import QuantileSketch
    from langnorm.norms.step_ranks import IntensityKind, StepSample
    from langnorm.norms.token_table import TokenTable

MAX_TOKENS = 1024
"""Most tokens of an answer where neither the chat model nor the model's own configuration names a limit: an answer that
goes on and on teaches little that is new, and the context of many models holds a hundred times as much."""


class LoadedModel(Protocol):
    """A loaded model, as far as a calibration is concerned; every engine is one."""

    @property
    def identity(self) -> ModelIdentity:
        """What its profile is tied to."""

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """An answer of T tokens.

    Attributes:
        token_ids: The T tokens.
        norms: T - 1 rows, each with one norm per decoder layer.
        texts: The text that became decodable with each of the T tokens.
        steps: Its steps, each as [start, end) in tokens.
        is_cut_off: Whether it ended at the limit of tokens.
    """

    token_ids: Sequence[int]
    norms: Sequence[Sequence[float]]
    texts: Sequence[str]
    steps: Sequence[tuple[int, int]]
    is_cut_off: bool


class NormAnswers(Protocol):
    """A chat model whose answers have norms, as far as a calibration is concerned; `ChatLangNorm` is one."""

    model: str
    max_batch_size: int
    layers: LayerSelection

    def loaded_engine(self) -> LoadedModel:
        """Return what runs it, with the weights loaded."""

    def is_sampling(self) -> bool:
        """Return whether its answers are drawn at random."""

    def deciding_settings(self) -> dict[str, Any]:
        """Return the settings that decide its answers, in plain types; `max_tokens`, which may be None, among them."""

    def record_answers(self, prompts: list[Any], **settings: Any) -> list[RecordedAnswer]:
        """Return the answers to some prompts, with the norms of all decoder layers."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration has found.

    Attributes:
        sketch: The distribution of the norms of all decoder layers.
        tokens: The usual norms of token ids; None where no token had a norm above 0 in all layers of the table.
        steps: How high the norms of steps are among all norms of each layer, by `"layer"`, and beside the usual ones of
            their tokens, by `"token"`; without either where no step was recorded.
        report: What was seen.
    """

    sketch: QuantileSketch
    tokens: TokenTable | None
    steps: Mapping[IntensityKind, StepSample]
    report: CalibrationReport


def calibrate(
    chat: NormAnswers,
    prompts: Sequence[Any],
    *,
    num_tokens: int,
    checkpoint: Path | None,
    restart: bool,
    show_progress: bool,
) -> Calibration:
    """Return what is found in the answers to some prompts; arguments are as for `NormProfile.calibrate`."""
    from tqdm import tqdm

    if not prompts or isinstance(prompts, str):
        msg = "There are no prompts. Give a list of texts, such as questions that the model will be asked."
        raise OptionError(msg)
    check_integer("num_tokens", num_tokens, low=1, allowed="1 or above; some thousands give a steady profile")
    run = _Run(chat, prompts)
    if checkpoint and checkpoint.exists() and not restart:
        run.go_on(Checkpoint.load(checkpoint, run.work))
    with tqdm(
        total=num_tokens, initial=min(run.num_samples, num_tokens), unit=" tokens", disable=not show_progress
    ) as bar:
        ending = f"It ended with the batch that reached {num_tokens:,} tokens."
        while run.num_samples < num_tokens:
            if why := run.why_no_more():
                ending = f"It ended early: {why}"
                break
            run.next_batch()
            if checkpoint:
                run.state.save(checkpoint, run.work)
            bar.update(min(run.num_samples, num_tokens) - bar.n)
    if not run.num_samples:
        msg = f"Not a single norm was recorded. {ending}"
        raise OptionError(msg)
    tokens = run.state.tokens.table()
    report = build_report(run.state.halves, tokens, run.state.tally, max_tokens=run.max_tokens, ending=ending)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    sketch, recorded = run.sketch, run.state.steps
    steps: dict[IntensityKind, StepSample] = {}
    if by_layer := recorded.by_layer(sketch):
        steps["layer"] = by_layer
    if by_token := recorded.by_token(tokens):
        steps["token"] = by_token
    return Calibration(sketch, tokens, steps, report)


class _Run:
    """Asks batch after batch."""

    def __init__(self, chat: NormAnswers, prompts: Sequence[Any]) -> None:
        from langnorm.norms.sketch import QuantileSketch

        engine = chat.loaded_engine()
        settings = chat.deciding_settings()
        self._chat = chat
        self._is_sampling = chat.is_sampling()
        size = chat.max_batch_size
        self._batches = [list(prompts[start : start + size]) for start in range(0, len(prompts), size)]
        self.max_tokens: int = settings["max_tokens"] or MAX_TOKENS
        decisive = settings | {"max_tokens": self.max_tokens, "batch_size": size} | asdict(engine.identity)
        layers = range(engine.num_layers)
        named: tuple[LayerSelection, ...] = ("late", "deep", chat.layers)
        of_tokens = sorted({layer for each in named for layer in select_layers(each, engine.num_layers)})
        self.work = describe_work(decisive | {"token_layers": of_tokens}, prompts, engine.num_layers)
        halves = (QuantileSketch(layers), QuantileSketch(layers))
        self.state = Checkpoint(halves, TokenSums(of_tokens), RecordedSteps(engine.num_layers), Tally(), 0)
        self._num_before_round = -1

    @property
    def sketch(self) -> QuantileSketch:
        """The distribution of all norms so far."""
        whole = self.state.halves[0].copy()
        whole.merge(self.state.halves[1])
        return whole

    @property
    def num_samples(self) -> int:
        """Number of tokens so far."""
        return sum(half.num_samples for half in self.state.halves)

    def go_on(self, state: Checkpoint) -> None:
        """Take the place of a run that was stopped."""
        self.state = state

    def why_no_more(self) -> str:
        """Return why another batch would be no use, as a sentence, or nothing."""
        if self.state.num_batches % len(self._batches):
            return ""
        if self.state.num_batches and not self._is_sampling:
            return "all prompts are answered, and greedy answers would only come again. Give more prompts."
        if self.num_samples == self._num_before_round:
            return "all prompts were asked again, and not one norm was new. Give other prompts."
        self._num_before_round = self.num_samples
        return ""

    def next_batch(self) -> None:
        """Ask the next prompts, and count what they are answered."""
        number = self.state.num_batches
        seed = {"seed": number} if self._is_sampling else {}
        batch = self._batches[number % len(self._batches)]
        state = self.state
        for answer in self._chat.record_answers(batch, max_tokens=self.max_tokens, **seed):
            state = _counted(state, answer)
        self.state = replace(state, num_batches=number + 1)


def _known_by(texts: Sequence[str]) -> list[tuple[str, int]]:
    """Return by what tokens are told apart: one without a text is part of a character, known by that and its place."""
    known, following, distance = [], "", 0
    for text in reversed(texts):
        following, distance = (text, 0) if text else (following, distance + 1)
        known.append((following, distance))
    return known[::-1]


def _counted(state: Checkpoint, answer: RecordedAnswer) -> Checkpoint:
    """Add the norms of an answer to the distributions of a checkpoint, and return it with what has been counted."""
    import torch

    from langnorm.norms.sinks import sinks_among

    is_loop = torch.from_numpy(are_looping(_known_by(answer.texts)))[: len(answer.norms)]
    half, tally = state.halves[state.tally.answers % 2], state.tally
    tally = replace(
        tally,
        answers=tally.answers + 1,
        cut_off=tally.cut_off + answer.is_cut_off,
        looping=tally.looping + bool(is_loop.any()),
        loop_tokens=tally.loop_tokens + int(is_loop.sum()),
    )
    if not answer.norms:
        return replace(state, tally=tally)
    norms = torch.tensor(answer.norms, dtype=torch.float64)
    is_sink = sinks_among(norms) & ~is_loop
    is_counted = ~is_sink & ~is_loop
    half.update(norms, is_counted)
    rows, counts = norms.numpy(), is_counted.numpy()
    state.tokens.update(answer.token_ids, rows[:, state.tokens.layers], counts)
    for start, end in answer.steps:
        kept = [i for i in range(start, min(end, len(rows))) if counts[i]]
        state.steps.add([answer.token_ids[i] for i in kept], rows[kept])
    return replace(state, tally=replace(tally, sinks=tally.sinks + int(is_sink.sum())))

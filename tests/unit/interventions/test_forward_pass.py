"""Interventions on toy layers: in any company, order and repetition every sequence gets what it gets alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from langnorm.interventions import steering
from langnorm.interventions.forward_pass import Interventions
from langnorm.interventions.options import Recursion, Steering, Suppression
from langnorm.interventions.plan import Plan, Plans
from langnorm.interventions.random_draws import draw_uniform
from langnorm.norms.thresholds import RunningThreshold
from tests.reference import interventions as reference
from tests.reference.block_loop import BlockLoop
from tests.support.interventions import loop_of, oracle_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NUM_LAYERS, HIDDEN, PROMPT = 3, 6, 2
LAYERS = (1, 2)
THRESHOLDS = (2.6, 2.9)
NUM_UNDOABLE = 8  # fewer than in use, so that the bank overflows here
WEIGHTS = torch.randn(NUM_LAYERS, HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(1))

# The k of running thresholds is above 0: with 0 they may be an earlier token's norm, and the same state again is a tie.
RECURSIONS = (
    Recursion(threshold="iqr", growth_eps=-0.5, blowup=2.0),
    Recursion(threshold="iqr", growth_eps=-0.3, blowup=1.4, max_extra=3, alpha=0.5, only_decode=False),
    Recursion(threshold="iqr", growth_eps=-0.6, blowup=3.0, max_extra=2, alpha=0.7, block=2),
    Recursion(threshold=RunningThreshold(k=0.1, warm_up=3), growth_eps=0.15, blowup=2.0, max_extra=2),
    Recursion(mode="block", layers=(0, 1), on="decode"),
    Recursion(mode="block", layers=(1, 2), on="prefill", num_loops=3, anchor=0.1),
    Recursion(mode="block", layers=(1,), on="peaks", threshold="iqr", num_loops=3),
    Recursion(mode="block", layers=(2,), on="peaks", threshold=RunningThreshold(k=0.05, warm_up=2), anchor=0.0),
)
STEERINGS = (
    Steering(threshold="iqr", trigger="slack", low_k=1, p_inject=0.8, cos_min=-0.5, cooldown=2, bank_size=2),
    Steering(
        threshold="iqr",
        trigger="slack",
        low_k=2,
        p_inject=1.0,
        cos_min=0.1,
        cooldown=0,
        bank_size=3,
        gamma=1.3,
        beta=1.0,
    ),
    Steering(threshold=RunningThreshold(k=0.05, warm_up=2), trigger="slack", low_k=2, p_inject=0.8, cos_min=-0.5),
    Steering(threshold="iqr", cos_min=0.6, bank_size=2),
    Steering(threshold=RunningThreshold(k=0.05, warm_up=2), cos_min=0.1, bank_size=3, beta=1.0),
)
SUPPRESSIONS = (
    Suppression(threshold="iqr"),
    Suppression(threshold="iqr", action="clamp"),
    Suppression(threshold="iqr", mode="random", factor=0.3),
    Suppression(threshold=RunningThreshold(k=0.2, warm_up=4), action="clamp"),
    Suppression(threshold=RunningThreshold(k=0.05, warm_up=1), mode="random", factor=0.3),
    Suppression(mode="mask", layers=LAYERS, mask=[[0, 3, 4, 17], [28, 3]], factor=0.4),
    Suppression(mode="mask", layers=LAYERS, mask=[[], range(2, 30, 3)], action="clamp", threshold="iqr"),
)


def run_layer(layer: int, states: Tensor, number: Tensor) -> Tensor:
    """Return what a toy layer makes of states (N, d) of the sequences with these numbers (N,)."""
    return 0.8 * states + torch.tanh(states @ WEIGHTS[layer]) + 0.1 * number[:, None]


def embed(number: int, step: int, *, is_guess: bool = False) -> Tensor:
    """Return what enters the first layer (d,) at a step of a sequence; a guessed token is another one."""
    generator = torch.Generator().manual_seed(10_000 * number + 10 * (step + PROMPT) + is_guess)
    return torch.randn(HIDDEN, generator=generator)


@dataclass
class Turn:
    """What a sequence has computed in one pass: `length` tokens from `back` before its next one."""

    number: int
    back: int = 0
    length: int = 1
    is_guess: bool = False
    leaves: bool = False


@dataclass
class ToyEngine:
    """Runs turns of sequences together, and keeps the last state of each step and the reports of those that left."""

    plans: Sequence[Plans]
    interventions: Interventions = field(default_factory=lambda: Interventions(NUM_LAYERS))
    next_steps: dict[int, int] = field(default_factory=dict)
    peaks: dict[int, int] = field(default_factory=dict)
    states: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def run(self, turns: Sequence[Turn]) -> None:
        """Run one pass."""
        first_steps, inputs, numbers = [], [], []
        for turn in turns:
            number = turn.number
            if number not in self.next_steps:
                self.interventions.add(
                    f"request {number}", self.plans[number], seed=number, sample=1, num_prompt_tokens=PROMPT
                )
                self.next_steps[number] = self.peaks[number] = -PROMPT
            # All over again, or no more than the bank can undo.
            earliest = -PROMPT if turn.back > NUM_UNDOABLE else self.peaks[number] - NUM_UNDOABLE
            first = max(-PROMPT, earliest, self.next_steps[number] - turn.back)
            steps = range(first, first + turn.length)
            first_steps.append(first)
            inputs += [embed(number, step, is_guess=turn.is_guess) for step in steps]
            numbers += [number] * turn.length
            self.peaks[number] = max(first, self.peaks[number] if turn.back <= NUM_UNDOABLE else first, steps.stop)
            self.next_steps[number] = first if turn.is_guess else steps.stop
        self._forward(turns, first_steps, torch.stack(inputs), torch.tensor(numbers))

    def _forward(self, turns: Sequence[Turn], first_steps: list[int], states: Tensor, numbers: Tensor) -> None:
        lengths = [turn.length for turn in turns]
        keys = [f"request {turn.number}" for turn in turns]
        self.interventions.begin_pass(keys, first_steps, 1 if set(lengths) == {1} else lengths)

        def rerun(layers: range, states: Tensor, sequences: Sequence[int]) -> Tensor:
            own = torch.tensor([turns[i].number for i in sequences for _ in range(lengths[i])])
            for layer in layers:
                states = run_layer(layer, states, own)
            return states

        entering = {}
        for layer in range(NUM_LAYERS):
            entering[layer] = states
            states = run_layer(layer, states, numbers)
            if layer in LAYERS:
                before = states.clone()
                after, norms = self.interventions.act(layer, states, rerun, entering.__getitem__)
                assert torch.equal(states, before)
                if norms is not None:
                    torch.testing.assert_close(norms, after.norm(dim=-1))
                states = after
        row = 0
        for turn, first in zip(turns, first_steps, strict=True):
            for step in range(first, first + turn.length):
                self.states[turn.number, step] = states[row]
                row += 1

    def leave(self, number: int) -> tuple[dict[str, Any], list[Tensor]]:
        """Let a sequence leave; return its report and its states by step."""
        num_tokens = self.next_steps.pop(number)
        report = self.interventions.report(f"request {number}", max(0, num_tokens))
        self.interventions.remove(f"request {number}")
        return report, [self.states[number, step] for step in range(-PROMPT, num_tokens)]


def run_alone(plans: Sequence[Plans], number: int, num_tokens: int) -> tuple[dict[str, Any], list[Tensor]]:
    """Return report and states of a sequence that is run by itself, token by token."""
    engine = ToyEngine(plans)
    for _ in range(PROMPT + num_tokens):
        engine.run([Turn(number)])
    return engine.leave(number)


def plan_of(options: Any) -> Plan[Any] | None:
    """Return the plan of some options."""
    if options is None:
        return None
    layers = options.layers if isinstance(options, Recursion) and options.mode == "block" else LAYERS
    if isinstance(options.rule, RunningThreshold):
        return Plan(options, layers, None)
    return Plan(options, layers, tuple(THRESHOLDS[LAYERS.index(layer)] for layer in options.acts_after(layers)))


@st.composite
def any_plans(draw: st.DrawFn) -> Plans:
    """Draw any interventions together that may be."""
    recursion, *others = (plan_of(draw(st.sampled_from((None, *kinds)))) for kinds in KINDS)
    if recursion and set(recursion.layers) - set(recursion.acts_after) & set(LAYERS):
        others = [None, None]  # they would act inside the block
    return Plans(recursion, *others)


KINDS: tuple[tuple[Any, ...], ...] = (RECURSIONS, STEERINGS, SUPPRESSIONS)
PLANS = any_plans()
TURNS = st.builds(
    Turn,
    number=st.integers(0, 3),
    back=st.sampled_from((0, 0, 0, 1, 3, 99)),
    length=st.sampled_from((1, 1, 1, 2, 5)),
    is_guess=st.sampled_from((False, False, True)),
    leaves=st.sampled_from((False, False, False, False, True)),
)
PASSES = st.lists(TURNS, min_size=1, max_size=4, unique_by=lambda turn: turn.number)


@settings(max_examples=settings.default.max_examples * 3 // 2)
@given(plans=st.lists(PLANS, min_size=4, max_size=4), passes=st.lists(PASSES, min_size=1, max_size=25))
def test_every_sequence_gets_what_it_gets_alone(plans, passes) -> None:
    """Whoever enters and leaves beside it, however its tokens are cut into passes, computed again or only guessed."""
    with mock.patch.object(steering, "NUM_UNDOABLE", NUM_UNDOABLE):
        engine = ToyEngine(plans)
        for turns in passes:
            engine.run(turns)
            for turn in turns:
                if turn.leaves:
                    check_as_alone(engine, turn.number)
        for number in list(engine.next_steps):
            check_as_alone(engine, number)


def check_as_alone(engine: ToyEngine, number: int) -> None:
    """Check the report and all states of a sequence that leaves."""
    engine.run([Turn(number)])  # in place of what was guessed
    num_tokens = engine.next_steps[number]
    report, states = engine.leave(number)
    expected_report, expected_states = run_alone(engine.plans, number, num_tokens)
    assert same(report, expected_report)
    for state, expected in zip(states, expected_states, strict=True):
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5)


def same(report: Any, expected: Any) -> bool:
    """Return whether reports are equal but for the rounding of cosines."""
    if isinstance(expected, dict):
        return report.keys() == expected.keys() and all(same(report[name], expected[name]) for name in expected)
    if isinstance(expected, list):
        return len(report) == len(expected) and all(map(same, report, expected))
    return report == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)


class ToyRecursion(reference.Recursion):
    """The oracle's recursion on the toy layers."""

    number: int = 0

    def extra_pass(self, decoder: Any, inputs: Any, layer: int, h: Tensor) -> Tensor:  # noqa: ARG002
        """Run the layers of the block."""
        for index in range(layer - self.block + 1, layer + 1):
            h = run_layer(index, h[None], torch.tensor([self.number]))[0]
        return h


@dataclass
class ToyBlockLoop(BlockLoop):
    """The oracle's loop on the toy layers."""

    number: int = 0

    def block(self, decoder: Any, inputs: Any, position: int, h: Tensor) -> Tensor:  # noqa: ARG002
        """Run the layers of the block."""
        for index in self.layers:
            h = run_layer(index, h[None], torch.tensor([self.number]))[0]
        return h


def fields_of(plan: Plan[Any] | None) -> dict[str, Any]:
    """Return what the oracle is made of."""
    return oracle_fields(plan) if plan else {"thresholds": {}}


@given(plans=PLANS, number=st.integers(0, 3))
def test_a_sequence_alone_gets_what_the_oracle_says(plans, number) -> None:
    """States, counts, pulls and shrunk states of 30 tokens, of all three interventions together."""
    loop = loop_of(plans)
    if loop:
        loop = ToyBlockLoop(loop.layers, loop.on, loop.num_loops, loop.anchor, loop.thresholds, number=number)
    recursion = ToyRecursion(**fields_of(None if loop else plans.recursion))
    recursion.number = number
    steerer = reference.Steering(**fields_of(plans.steering))
    suppressor = reference.Suppression(**fields_of(plans.suppression))
    draws = partial(draw_uniform, number, 1)
    with_prompt = plans.act_on_prompt
    expected = []
    recursed = {str(layer): list[int]() for layer in recursion.thresholds}  # tokens of the answer that were acted on
    shrunk = {str(layer): list[int]() for layer in suppressor.thresholds}
    for step in range(-PROMPT, 30):
        h, inputs = embed(number, step), []
        for layer in range(NUM_LAYERS):
            inputs.append(h[None])
            h = run_layer(layer, h[None], torch.tensor([number]))[0]
            if loop and layer == loop.layers[-1]:
                h = loop.apply(None, inputs, 0, h, is_prompt=step < 0)  # type: ignore[arg-type]
            if layer in recursion.thresholds and (step >= 0 or with_prompt):
                num_before = recursion.counts[layer]["triggered"]
                h = recursion.apply(None, [], layer, h)  # type: ignore[arg-type]
                recursed[str(layer)] += (
                    [step] if step >= 0 and recursion.counts[layer]["triggered"] > num_before else []
                )
            if layer in steerer.thresholds and step >= 0:
                h = steerer.apply(layer, h, step, draws)
            if layer in suppressor.thresholds and step >= 0:
                num_before = suppressor.counts[layer]
                h = suppressor.apply(layer, h, step, draws)
                shrunk[str(layer)] += [step] if suppressor.counts[layer] > num_before else []
        expected.append(h)

    report, states = run_alone([plans] * 4, number, 30)

    torch.testing.assert_close(torch.stack(states), torch.stack(expected), rtol=1e-4, atol=1e-5)
    for name, oracle in {"recursion": loop or recursion, "steering": steerer, "suppression": suppressor}.items():
        compared = {str(layer): tau for layer, tau in reference.last_taus(oracle.thresholds).items()}
        is_compared = compared and all(plan.options.compares_norms for plan in plans.all() if plan.options.name == name)
        expected_taus = pytest.approx(compared, rel=1e-4) if is_compared else None
        assert name not in report or report[name]["thresholds"] == expected_taus
    if loop:
        moved = report["recursion"]["moved"]
        assert report["recursion"]["layers"][str(loop.layers[-1])]["triggered"] == loop.num_run
        assert moved["mean"] == pytest.approx(sum(loop.moved) / len(loop.moved), abs=1e-5)
        assert moved["max"] == pytest.approx(max(loop.moved), abs=1e-5)
    elif plans.recursion:
        assert report["recursion"]["layers"] == {str(layer): counts for layer, counts in recursion.counts.items()}
        assert report["recursion"]["acted_on"] == recursed
    if plans.steering:
        pulls = [(pull["token"], pull["layer"]) for pull in report["steering"]["injections"]]
        assert pulls == [(step, layer) for step, layer, _ in steerer.injections]
    if plans.suppression:
        assert report["suppression"]["suppressed"] == {str(i): count for i, count in suppressor.counts.items()}
        assert report["suppression"]["acted_on"] == shrunk


@pytest.mark.parametrize(
    "options",
    [
        (RECURSIONS[1], STEERINGS[0], SUPPRESSIONS[2]),
        (RECURSIONS[3], STEERINGS[2], SUPPRESSIONS[4]),
        (RECURSIONS[3], STEERINGS[3], SUPPRESSIONS[3]),
        (RECURSIONS[3], STEERINGS[4], SUPPRESSIONS[3]),
    ],
    ids=["known", "slack, running", "peak", "peak, running"],
)
def test_something_is_done_in_these_tests(options) -> None:
    """The toy layers have norms on both sides of the thresholds: every intervention acts, and not always."""
    plans = Plans(*map(plan_of, options))
    report, _ = run_alone([plans], 0, 60)
    for counts in report["recursion"]["layers"].values():
        assert 5 < counts["accepted"] < counts["passes"] < 150
    assert 3 < len(report["steering"]["injections"]) < 60
    assert all(3 < count < 40 for count in report["suppression"]["suppressed"].values())


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("num_beyond", [0, 1, 3])
def test_what_was_done_beyond_the_end_is_undone(kind, num_beyond) -> None:
    """Where more tokens were run than the answer has, its report is that of the answer."""
    plans = [Plans(plan_of(RECURSIONS[kind]), plan_of(STEERINGS[kind]), plan_of(SUPPRESSIONS[kind]))]
    engine = ToyEngine(plans)
    for _ in range(PROMPT + 40 + num_beyond):
        engine.run([Turn(0)])
    engine.interventions.roll_back("request 0", 40)
    expected, _ = run_alone(plans, 0, 40)
    assert same(engine.interventions.report("request 0", 40), expected)
    engine.interventions.roll_back("request 0", 50)  # of which there is nothing
    assert same(engine.interventions.report("request 0", 40), expected)


def test_tokens_of_unknown_keys_and_padding_are_left_alone() -> None:
    """Their states flow on, whatever their norms."""
    plans = Plans(recursion=plan_of(RECURSIONS[1]), suppression=plan_of(SUPPRESSIONS[0]))
    interventions = Interventions(NUM_LAYERS)
    interventions.add("known", plans, seed=0, sample=0, num_prompt_tokens=1)
    states = torch.full((3, HIDDEN), 1.2)

    def rerun(_layers: range, states: Tensor, sequences: Sequence[int]) -> Tensor:
        assert list(sequences) == [1]
        return 1.1 * states

    def entered(_layer: int) -> Tensor:
        raise AssertionError

    interventions.begin_pass([None, "known", None], [0, 0, 0])
    after, _ = interventions.act(1, states, rerun, entered)
    assert (after != states).any(dim=1).tolist() == [False, True, False]
    interventions.begin_pass([None, "known"], [-2, -2], [1, 2])
    after, _ = interventions.act(1, states, rerun, entered)
    assert (after != states).any(dim=1).tolist() == [False, False, True]
    assert interventions.report("known", 0)["recursion"]["layers"]["1"]["triggered"] == 1

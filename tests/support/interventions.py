"""Requests that intervene, and what the oracle makes of them."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from statistics import quantiles
from typing import TYPE_CHECKING, Any

import pytest
import torch

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from langnorm.interventions.options import Recursion, Steering, Suppression
from langnorm.interventions.plan import Plan, Plans
from langnorm.interventions.random_draws import draw_uniform
from langnorm.norms.thresholds import RunningThreshold
from tests.reference import interventions as reference
from tests.reference.block_loop import BlockLoop
from tests.support.calls import answer, ask
from tests.support.models import NUM_LAYERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langnorm.engines.base import Engine
    from langnorm.engines.requests import Completion

ALL = tuple(range(NUM_LAYERS))
FAMILIES = ("qwen3", "llama", "gemma2", "olmo2")
"""Of models, whose layers take different arguments."""

NEVER = (10**6,)
"""An end token beyond every vocabulary."""

LAYERS = (1, 2)
SEED = 11

RUNNING = RunningThreshold(k=0.3, warm_up=4)
"""Above so little of the quartiles, a norm in five or so is high."""

RECURSIONS = {
    "paper": Recursion(growth_eps=-0.3, blowup=2.0),
    "several": Recursion(max_extra=4, growth_eps=-0.5, blowup=4.0, alpha=0.6),
    "block": Recursion(max_extra=2, growth_eps=-0.5, blowup=4.0, alpha=0.4, block=2),
}
LOOPS = {
    "decode": Recursion(mode="block", layers=LAYERS),
    "prefill": Recursion(mode="block", layers=LAYERS, on="prefill", num_loops=3),
    "peaks": Recursion(mode="block", layers=LAYERS, on="peaks", threshold=RUNNING, num_loops=3, anchor=0.2),
    "one layer": Recursion(mode="block", layers=(2,), num_loops=3, anchor=0.0),
}
STEERING = Steering(trigger="slack", low_k=2, p_inject=0.6, cos_min=0.0, cooldown=3, bank_size=4, beta=0.7)
PEAK_STEERING = Steering(cos_min=0.0, bank_size=4, beta=0.7)
SUPPRESSIONS = {
    "high": Suppression(),
    "clamp": Suppression(action="clamp"),
    "random": Suppression(mode="random", factor=0.3),
}


def thresholds(engine: Engine, prompt: Sequence[int], layers: Sequence[int] = LAYERS) -> tuple[float, ...]:
    """Return a middling norm of each layer, but none that occurs: rounding would decide on which side it is."""
    norms = answer(engine, ask(prompt, layers=layers, max_tokens=40)).norms
    return tuple(1.003 * quantiles(column, n=5)[2] for column in zip(*norms, strict=True))


def request_of(
    prompt: Sequence[int],
    taus: tuple[float, ...] | None,
    *options: Recursion | Steering | Suppression,
    num_tokens: int = 30,
    layers: tuple[int, ...] = LAYERS,
    recorded: tuple[int, ...] = ALL,
    **sampling: Any,
) -> Request:
    """Return a request that intervenes at `layers`."""
    plans = Plans(**{o.name: plan_of(o, layers, taus) for o in options})  # type: ignore[arg-type]
    return Request(
        tuple(prompt), Sampling(max_tokens=num_tokens, seed=SEED, **sampling), Record(layers=recorded), plans=plans
    )


def plan_of(options: Any, layers: tuple[int, ...], taus: tuple[float, ...] | None) -> Plan[Any]:
    """Return the plan of some options at `layers`; a block loop has layers of its own, and a running threshold."""
    if isinstance(options, Recursion) and options.mode == "block":
        return Plan(options, tuple(map(int, options.layers)), None)
    return Plan(options, layers, taus)


def expected_of(model: Any, request: Request, loop: BlockLoop | None = None) -> reference.Outcome:
    """Return what the oracle makes of a request, whose block loop is noted in `loop`."""

    def fields_of(plan: Plan[Any] | None) -> dict[str, Any] | None:
        return oracle_fields(plan) if plan and plan.is_active else None

    plans = request.plans
    recursion, loop = plans.recursion, loop or loop_of(plans)
    return reference.generate(
        model,
        list(request.prompt_ids),
        request.sampling.max_tokens,
        recursion=None if loop else fields_of(recursion),
        steering=fields_of(plans.steering),
        suppression=fields_of(plans.suppression),
        loop=loop,
        draws=partial(draw_uniform, SEED, 0),
    )


ORACLES: dict[str, type[Any]] = {
    "recursion": reference.Recursion,
    "steering": reference.Steering,
    "suppression": reference.Suppression,
}


def oracle_fields(plan: Plan[Any]) -> dict[str, Any]:
    """Return what the oracle of an active plan is made of."""
    names = [option.name for option in fields(ORACLES[plan.options.name]) if option.name != "thresholds"]
    return {"thresholds": oracle_thresholds(plan)} | {name: getattr(plan.options, name) for name in names}


def loop_of(plans: Plans) -> BlockLoop | None:
    """Return the oracle of the block loop among some plans, or None."""
    plan = plans.recursion
    if plan is None or plan.options.mode != "block" or not plan.is_active:
        return None
    options = plan.options
    taus = oracle_thresholds(plan) if options.on == "peaks" else {}
    return BlockLoop(plan.layers, options.on, options.num_loops, options.anchor, taus)


def oracle_thresholds(plan: Plan[Any]) -> reference.Thresholds:
    """Return the thresholds of an active plan as the oracle takes them."""
    if plan.thresholds is not None:
        return dict(zip(plan.acts_after, plan.thresholds, strict=True))
    rule = plan.options.rule
    assert isinstance(rule, RunningThreshold)
    return reference.Running(plan.acts_after, rule.k, rule.warm_up)


def assert_as_defined(model: Any, request: Request, completion: Completion) -> reference.Outcome:
    """Check tokens, norms and all that was counted against the oracle."""
    loop = loop_of(request.plans)
    expected = expected_of(model, request, loop)
    assert completion.token_ids == expected.tokens
    assert_same_report(request, completion, expected, loop)
    norms = torch.tensor(expected.norms)[:, list(request.norm_layers)]
    torch.testing.assert_close(torch.tensor(completion.norms), norms, rtol=1e-4, atol=1e-6)
    return expected


def assert_same_report(
    request: Request, completion: Completion, expected: reference.Outcome, loop: BlockLoop | None = None
) -> None:
    """Check the counts, pulls and shrunk states of a completion, and its thresholds."""
    report = completion.interventions
    if loop:
        assert_same_loop(request, report["recursion"], loop)
    for plan in filter(lambda plan: not (loop and plan.options.name == "recursion"), request.plans.all()):
        compared = {str(layer): tau for layer, tau in expected.compared[plan.options.name].items()}
        is_compared = compared and plan.options.compares_norms
        assert report[plan.options.name]["thresholds"] == (pytest.approx(compared, rel=1e-4) if is_compared else None)
    if request.plans.recursion and not loop:
        assert report["recursion"]["layers"] == {str(i): counts for i, counts in expected.recursion.items()}
    if request.plans.steering:
        pulls = [(pull["token"], pull["layer"], pull["cosine"]) for pull in report["steering"]["injections"]]
        assert [pull[:2] for pull in pulls] == [tuple(pull[:2]) for pull in expected.injections]
        assert [pull[2] for pull in pulls] == pytest.approx([pull[2] for pull in expected.injections], abs=1e-4)
    if request.plans.suppression:
        assert report["suppression"]["suppressed"] == {str(i): count for i, count in expected.suppressed.items()}


def assert_same_loop(request: Request, report: dict[str, Any], loop: BlockLoop) -> None:
    """Check what a completion reports of a block loop."""
    layer, num_rows = str(loop.layers[-1]), request.sampling.max_tokens - 1
    num_tokens = len(request.prompt_ids) if loop.on == "prefill" else num_rows
    passes = loop.num_run * (loop.num_loops - 1)
    assert report["layers"] == {layer: {"tokens": num_tokens, "triggered": loop.num_run, "passes": passes}}
    assert report["block"] == list(loop.layers)
    assert report["extra_layer_passes"] == passes * len(loop.layers)
    mean, highest = sum(loop.moved) / len(loop.moved), max(loop.moved)
    assert report["moved"] == pytest.approx({"mean": mean, "max": highest}, rel=1e-4, abs=1e-6)
    taus = reference.last_taus(loop.thresholds)
    assert report["thresholds"] == (pytest.approx({layer: taus[int(layer)]}, rel=1e-4) if taus else None)

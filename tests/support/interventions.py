"""Requests that intervene, and what the oracle makes of them."""

from __future__ import annotations

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
from tests.support.calls import answer, ask
from tests.support.models import NUM_LAYERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langnorm.engines.base import Engine
    from langnorm.engines.requests import Completion

ALL = tuple(range(NUM_LAYERS))
LAYERS = (1, 2)
SEED = 11

RECURSIONS = {
    "paper": Recursion(growth_eps=-0.3, blowup=2.0),
    "several": Recursion(max_extra=4, growth_eps=-0.5, blowup=4.0, alpha=0.6),
    "block": Recursion(max_extra=2, growth_eps=-0.5, blowup=4.0, alpha=0.4, block=2),
}
STEERING = Steering(trigger="slack", low_k=2, p_inject=0.6, cos_min=0.0, cooldown=3, bank_size=4, beta=0.7)
PEAK_STEERING = Steering(cos_min=0.0, bank_size=4, beta=0.7)
SUPPRESSIONS = {
    "high": Suppression(),
    "clamp": Suppression(action="clamp"),
    "random": Suppression(mode="random", factor=0.3),
}
RUNNING = RunningThreshold(k=0.3, warm_up=4)
"""Above so little of the quartiles, a norm in five or so is high."""


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
    plans = Plans(**{o.name: Plan(o, layers, taus) for o in options})  # type: ignore[arg-type]
    return Request(
        tuple(prompt), Sampling(max_tokens=num_tokens, seed=SEED, **sampling), Record(layers=recorded), plans=plans
    )


def expected_of(model: Any, request: Request) -> reference.Outcome:
    """Return what the oracle makes of a request."""

    def fields(plan: Plan[Any] | None) -> dict[str, Any] | None:
        if plan is None or not plan.is_active:
            return None
        names = [name for name in type(plan.options).__slots__ if name not in ("layers", "threshold", "only_decode")]
        return {"thresholds": oracle_thresholds(plan)} | {name: getattr(plan.options, name) for name in names}

    plans = request.plans
    return reference.generate(
        model,
        list(request.prompt_ids),
        request.sampling.max_tokens,
        recursion=fields(plans.recursion),
        steering=fields(plans.steering),
        suppression=fields(plans.suppression),
        draws=partial(draw_uniform, SEED, 0),
    )


def oracle_thresholds(plan: Plan[Any]) -> reference.Thresholds:
    """Return the thresholds of an active plan as the oracle takes them."""
    if plan.thresholds is not None:
        return dict(zip(plan.layers, plan.thresholds, strict=True))
    rule = plan.options.rule
    assert isinstance(rule, RunningThreshold)
    return reference.Running(plan.layers, rule.k, rule.warm_up)


def assert_as_defined(model: Any, request: Request, completion: Completion) -> reference.Outcome:
    """Check tokens, norms and all that was counted against the oracle."""
    expected = expected_of(model, request)
    assert completion.token_ids == expected.tokens
    assert_same_report(request, completion, expected)
    norms = torch.tensor(expected.norms)[:, list(request.norm_layers)]
    torch.testing.assert_close(torch.tensor(completion.norms), norms, rtol=1e-4, atol=1e-6)
    return expected


def assert_same_report(request: Request, completion: Completion, expected: reference.Outcome) -> None:
    """Check the counts, pulls and shrunk states of a completion, and its thresholds."""
    report = completion.interventions
    for plan in request.plans.all():
        compared = {str(layer): tau for layer, tau in expected.compared[plan.options.name].items()}
        assert report[plan.options.name]["thresholds"] == (pytest.approx(compared, rel=1e-4) if compared else None)
    if request.plans.recursion:
        assert report["recursion"]["layers"] == {str(i): counts for i, counts in expected.recursion.items()}
    if request.plans.steering:
        pulls = [(pull["token"], pull["layer"], pull["cosine"]) for pull in report["steering"]["injections"]]
        assert [pull[:2] for pull in pulls] == [tuple(pull[:2]) for pull in expected.injections]
        assert [pull[2] for pull in pulls] == pytest.approx([pull[2] for pull in expected.injections], abs=1e-4)
    if request.plans.suppression:
        assert report["suppression"]["suppressed"] == {str(i): count for i, count in expected.suppressed.items()}

"""What a causal check found, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from langnorm.evaluation.intervals import percent, points
from langnorm.evaluation.statistics import Interval, bootstrap_mean
from langnorm.probes.causal import Arm, CausalResult
from langnorm.probes.causal_store import Outcome

_NAMES: Mapping[str, str] = {
    "baseline": "none",
    "high": "high norms",
    "random": "as many random tokens",
    "same_class": "as many of the same class",
}


def causal_report(result: CausalResult) -> dict[str, Any]:
    """Return all figures in plain JSON types.

    Shares of right answers have 95 % bootstrap intervals over problems, and differences are paired by problem: of each
    problem, the share of its seeds.
    """
    baseline = _by_problem(result.baseline, result.num_tasks)
    return {
        "check": asdict(result.check),
        "num_tasks": result.num_tasks,
        "baseline": _figures(result.baseline, baseline),
        "arms": [_of_arm(arm, baseline, result.num_tasks) for arm in result.arms],
    }


def _of_arm(arm: Arm, baseline: np.ndarray, num_tasks: int) -> dict[str, Any]:
    right = {name: _by_problem(outcomes, num_tasks) for name, outcomes in arm.outcomes.items()}
    conditions = {
        name: {**_figures(outcomes, right[name]), "against_none": bootstrap_mean(right[name] - baseline)}
        for name, outcomes in arm.outcomes.items()
    }
    num_states = sum(outcome.num_run for outcome in arm.outcomes["high"]) * len(arm.layers)
    num_high = sum(outcome.num_shrunk for outcome in arm.outcomes["high"])
    return {
        "layers": list(arm.layers),
        "quantile": arm.quantile,
        "thresholds": list(arm.thresholds),
        "share_of_states": num_high / num_states if num_states else 0.0,
        "conditions": conditions,
        "high_against": {name: bootstrap_mean(right["high"] - right[name]) for name in right if name != "high"},
    }


def _by_problem(outcomes: Sequence[Outcome], num_tasks: int) -> np.ndarray:
    """Return the share of right answers to each problem (P,)."""
    right = np.array([outcome.is_right for outcome in outcomes], dtype=float)
    return np.asarray(right.reshape(-1, num_tasks).mean(0))


def _figures(outcomes: Sequence[Outcome], right: np.ndarray) -> dict[str, Any]:
    def mean(of: Callable[[Outcome], float]) -> float:
        return float(np.mean([of(outcome) for outcome in outcomes]))

    masked = [outcome for outcome in outcomes if outcome.num_planned is not None]
    as_planned = [outcome.num_shrunk == outcome.num_planned for outcome in masked]
    return {
        "right": bootstrap_mean(right),
        "tokens": mean(lambda outcome: outcome.num_run),
        "cut": mean(lambda outcome: outcome.is_cut),
        "shrunk": mean(lambda outcome: outcome.num_shrunk),
        "share_as_many_as_planned": float(np.mean(as_planned)) if masked else None,
    }


def causal_page(report: Mapping[str, Any], title: str) -> str:
    """Return the figures of `causal_report` as a page of Markdown that says what they mean."""
    check, baseline = report["check"], report["baseline"]
    lines = [
        f"# Causal check: {title}",
        "",
        f"{report['num_tasks']} problems, {len(check['seeds'])} seeds, temperature {check['temperature']:g}; "
        f"suppression `{check['action']}`{_factor(check)}.",
        f"Right answers without suppression: {percent(baseline['right'])}, of {baseline['tokens']:.0f} tokens on "
        f"average, {baseline['cut']:.1%} cut at {check['max_tokens']}.",
        "",
        "Intervals are 95 % bootstrap intervals over problems; differences are paired by problem, in points. A control",
        "shrinks as many states as were of high norm in the run that it controls, at other tokens; `exact` says in how",
        "many of its answers it did (an answer may end before all of them).",
    ]
    for arm in report["arms"]:
        layers = ", ".join(map(str, arm["layers"]))
        dose = f"norms above the {arm['quantile']:.4g} quantile ({arm['share_of_states']:.2%} of states)"
        lines += [
            "",
            f"## Layers {layers}; {dose}",
            "",
            "| suppressed | right | against none | states per answer | exact | tokens | cut |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in arm["conditions"].items():
            exact = row["share_as_many_as_planned"]
            cells = [
                _NAMES[name],
                percent(row["right"]),
                points(row["against_none"]),
                f"{row['shrunk']:.1f}",
                "" if exact is None else f"{exact:.1%}",
                f"{row['tokens']:.0f}",
                f"{row['cut']:.1%}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *(_verdict(name, difference) for name, difference in arm["high_against"].items())]
    return "\n".join(lines) + "\n"


def _factor(check: Mapping[str, Any]) -> str:
    return f" by {check['factor']:g}" if check["action"] == "mul" else " to a quarter of the threshold"


def _verdict(control: str, difference: Interval) -> str:
    against = f"suppressing {_NAMES[control]}: {points(difference)} points"
    if difference.high < 0:
        return f"- Suppressing high norms costs more right answers than {against}. That supports the claim."
    if difference.low > 0:
        return f"- Suppressing high norms costs fewer right answers than {against}. That speaks against the claim."
    return f"- Suppressing high norms costs no more or fewer right answers, as far as this can tell, than {against}."

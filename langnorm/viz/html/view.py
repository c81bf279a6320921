"""What a page shows of a trace, in plain JSON types: a column of numbers for each layer.

`NormTrace` stands above this folder, because it shows itself in notebooks by it; so a trace is `Any` here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PER_MILLE = 1000  # percentiles travel as whole numbers of it
_HUNDREDTHS = 100  # and distances as whole numbers of these
_DIGITS = 4  # of a norm


def build_view(
    trace: Any,
    *,
    name: str = "",
    step_texts: Sequence[str] = (),
    logprobs: Sequence[float] | None = None,
    facts: Iterable[str] = (),
) -> dict[str, Any]:
    """Return what a page shows of an answer.

    Its units are the tokens. Where the trace has no norms of tokens, they are the steps.

    Args:
        trace: A `NormTrace`.
        name: Of the answer, above it.
        step_texts: The text of each step, for a trace without texts of tokens.
        logprobs: The log-probability of each token, where they are known.
        facts: What else is said above the answer.
    """
    has_tokens = trace.token_norms is not None
    steps = [
        {"start": step.start, "end": step.end, "kind": step.kind, "intensity": step.intensity, "low": bool(step.low)}
        for step in trace.steps
    ]
    view: dict[str, Any] = {
        "name": name,
        "facts": list(facts),
        "tokens": trace.tokens,
        "layers": list(trace.layers),
        "profile": trace.profile,
        "intensity": trace.intensity,
        "steps": steps,
        "reports": _reports(trace),
    }
    if has_tokens:
        return view | _token_units(trace, logprobs)
    texts = list(step_texts) or [""] * len(steps)
    rows = [step.mean for step in trace.steps]
    for i, step in enumerate(steps):
        step |= {"start": i, "end": i + 1, "tokens": [step["start"], step["end"]]}
    return view | {
        "unit": "step",
        "texts": [text or f"[{step.kind}, tokens {step.start} to {step.end}]" for text, step in _pairs(texts, trace)],
        "norms": _columns(rows, len(trace.layers), _short),
        "percentiles": None,
        "distances": None,
        "logprobs": None,
        "intensities": [step.intensity for step in trace.steps],
        "sinks": [],
        "acts": {},
    }


def _token_units(trace: Any, logprobs: Sequence[float] | None) -> dict[str, Any]:
    texts = trace.token_texts or tuple(f"[{i}]" for i in range(trace.tokens))
    num_layers = len(trace.layers)
    return {
        "unit": "token",
        "texts": list(texts),
        "norms": _columns(trace.token_norms or (), num_layers, _short),
        "percentiles": trace.token_percentiles
        and _columns(trace.token_percentiles, num_layers, lambda value: round(value * _PER_MILLE)),
        "distances": trace.token_distances
        and _columns(trace.token_distances, num_layers, lambda value: round(value * _HUNDREDTHS)),
        "logprobs": None if logprobs is None else [round(value, 3) for value in logprobs],
        "intensities": None,
        "sinks": list(trace.sinks),
        "acts": _acts(trace),
    }


def _pairs(texts: Sequence[str], trace: Any) -> Iterable[tuple[str, Any]]:
    return zip(texts, trace.steps, strict=True)


def _columns(rows: Sequence[Sequence[float] | None], num_layers: int, shown: Any) -> list[list[Any]]:
    """Return rows of numbers by layer; None for a row that there is not."""
    return [[None if row is None else shown(row[layer]) for row in rows] for layer in range(num_layers)]


def _short(value: float) -> float | int:
    rounded = float(f"{value:.{_DIGITS}g}")
    return int(rounded) if rounded.is_integer() and rounded < 1e15 else rounded


def _acts(trace: Any) -> dict[str, list[str]]:
    """Return what interventions did to single tokens, in words, by the index of the token."""
    acts: dict[str, list[str]] = {}
    for pull in (trace.steering or {}).get("injections", ()):
        text = f"Steering, layer {pull['layer']}: pulled toward an earlier state (cosine {pull['cosine']:.2f})"
        acts.setdefault(str(pull["token"]), []).append(text)
    for name, verb in (("recursion", "the layer was run again"), ("suppression", "the state was shrunk")):
        by_layer: Mapping[str, Sequence[int]] = (getattr(trace, name) or {}).get("acted_on") or {}
        for layer, tokens in by_layer.items():
            for token in tokens:
                acts.setdefault(str(token), []).append(f"{name.capitalize()}, layer {layer}: {verb}")
    return acts


def _reports(trace: Any) -> list[str]:
    """Return what interventions did in all, a line each."""
    lines = []
    if report := trace.recursion:
        fired = sum(counts.get("triggered", 0) for counts in report.get("layers", {}).values())
        share = report.get("share_of_layer_passes") or 0.0
        lines.append(f"Recursion: {fired} states of high norm, {share:.1%} of all layer passes were extra.")
    if report := trace.steering:
        lines.append(f"Steering: {len(report.get('injections', ()))} states were pulled toward earlier ones.")
    if report := trace.suppression:
        lines.append(f"Suppression: {sum(report.get('suppressed', {}).values())} states were shrunk.")
    reports = filter(None, (trace.recursion, trace.steering, trace.suppression))
    return lines + [str(report["warning"]) for report in reports if report.get("warning")]

"""One sequence under interventions: what it remembers at each layer, and the report of what was done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langnorm.interventions.block_loop import BlockLoop
from langnorm.interventions.recursion import LayerRecursion
from langnorm.interventions.steering import LayerSteering, steering_of
from langnorm.interventions.suppression import LayerSuppression

if TYPE_CHECKING:
    from langnorm.interventions.options import Recursion
    from langnorm.interventions.plan import Plan, Plans


def _layers_of(plan: Plan[Any] | None) -> tuple[int, ...]:
    return plan.acts_after if plan and plan.is_active else ()


def _last_thresholds(
    plan: Plan[Any], layers: Mapping[int, LayerRecursion | BlockLoop | LayerSteering | LayerSuppression]
) -> dict[str, float | None] | None:
    """Return what the last token was compared with at each layer, or None where no token was compared with anything.

    A running threshold is another one for each token; what is known beforehand is the same for all of them.
    """
    if not plan.is_active:
        return None
    taus = {str(layer): state.threshold.last for layer, state in layers.items() if state.threshold}
    return taus if any(tau is not None for tau in taus.values()) else None


def _acted_on(layers: Mapping[int, LayerRecursion | BlockLoop | LayerSuppression]) -> dict[str, list[int]]:
    """Return which tokens of the answer were acted on at each layer."""
    return {str(layer): state.acted_on for layer, state in layers.items()}


def _idle(plan: Plan[Any], num_fired: int, num_tokens: int, reason: str) -> str | None:
    """Return what a report warns of: an intervention that did nothing, and why; None where it did something."""
    if num_fired:
        return None
    name, layers = plan.options.name, ", ".join(map(str, plan.acts_after))
    if not plan.is_active:
        return f"`{name}` did nothing: there are no thresholds yet. Give a `profile`, or numbers as its `threshold`."
    if not plan.options.compares_norms:
        return f"`{name}` did nothing on {num_tokens} tokens: {reason}."
    if plan.running and num_tokens <= plan.running.warm_up:
        return (
            f"`{name}` did nothing on {num_tokens} tokens: its running threshold starts after {plan.running.warm_up} "
            'tokens of the answer (`warm_up`). Give another `threshold`, such as "iqr" with a `profile`.'
        )
    return (
        f"`{name}` did nothing on {num_tokens} tokens: {reason} (layers {layers}). Lower its `threshold`, or give "
        "it other `layers`."
    )


class InterveningSequence:
    """The interventions of one sequence, by layer.

    Args:
        plans: Of its request.
        seed: Of its request.
        sample: Its number among the samples of the request.
        num_prompt_tokens: Length of the prompt.
    """

    def __init__(self, plans: Plans, *, seed: int, sample: int, num_prompt_tokens: int) -> None:
        self._plans = plans
        self._num_prompt_tokens = num_prompt_tokens
        self.last_step: float = -float("inf")
        """Decode step of the last token that was run."""
        self.recursion: dict[int, LayerRecursion] = {}
        self.block_loop: dict[int, BlockLoop] = {}
        """By the last layer of the block."""
        self.steering: dict[int, LayerSteering] = {}
        self.suppression: dict[int, LayerSuppression] = {}
        if (plan := plans.recursion) and plan.options.mode == "block":
            self.block_loop = {i: BlockLoop(plan, num_prompt_tokens) for i in _layers_of(plan)}
        elif plan:
            self.recursion = {i: LayerRecursion(plan, i, num_prompt_tokens) for i in _layers_of(plan)}
        if steering := plans.steering:
            self.steering = {i: steering_of(steering, i, seed, sample) for i in _layers_of(steering)}
        if suppression := plans.suppression:
            self.suppression = {i: LayerSuppression(suppression, i, seed, sample) for i in _layers_of(suppression)}

    def roll_back(self, step: int) -> None:
        """Forget this decode step and all after it, which are about to be computed again."""
        for by_layer in (self.recursion, self.block_loop, self.steering, self.suppression):
            for state in by_layer.values():
                state.roll_back(step)

    def report(self, num_tokens: int, num_layers: int) -> dict[str, Any]:
        """Return what was done, in plain JSON types, by the name of the intervention; one that did nothing says so.

        Args:
            num_tokens: How many of the generated tokens were run.
            num_layers: Number of decoder layers of the model.
        """
        report: dict[str, Any] = {}
        if plan := self._plans.recursion:
            report["recursion"] = self._report_recursion(plan, num_tokens, num_layers)
        if steering := self._plans.steering:
            pulls = [
                {"token": step, "layer": layer, "cosine": round(cosine, 6)}
                for layer, state in self.steering.items()
                for step, cosine in state.pulls
            ]
            pulls.sort(key=lambda pull: (pull["token"], pull["layer"]))
            report["steering"] = {
                "warning": _idle(
                    steering,
                    len(pulls),
                    num_tokens,
                    f"no {steering.options.trigger} state had an earlier one to be pulled toward",
                ),
                "thresholds": _last_thresholds(steering, self.steering),
                "injections": pulls,
            }
        if suppression := self._plans.suppression:
            num_shrunk = {str(layer): state.num_shrunk for layer, state in self.suppression.items()}
            is_mask = suppression.options.mode == "mask"
            reason = "none of its mask was run" if is_mask else "no norm was above its threshold"
            report["suppression"] = {
                "warning": _idle(suppression, sum(num_shrunk.values()), num_tokens, reason),
                "thresholds": _last_thresholds(suppression, self.suppression),
                "suppressed": num_shrunk,
                "acted_on": _acted_on(self.suppression),
            }
        return report

    def _report_recursion(self, plan: Plan[Recursion], num_tokens: int, num_layers: int) -> dict[str, Any]:
        options, by_layer = plan.options, self.recursion or self.block_loop
        num_run = num_tokens + (self._num_prompt_tokens if options.acts_on_prompt else 0)
        num_shown = self._num_prompt_tokens if options.mode == "block" and options.acts_on_prompt else num_run
        counts = {str(layer): {"tokens": num_shown} | state.counts() for layer, state in by_layer.items()}
        num_together = len(plan.layers) if options.mode == "block" else options.block
        extra = num_together * sum(of_layer["passes"] for of_layer in counts.values())
        ordinary = num_run * num_layers
        num_fired = sum(of_layer["triggered"] for of_layer in counts.values())
        reason = "no norm was above its threshold" if options.compares_norms else "no token of the answer was run"
        report: dict[str, Any] = {
            "warning": _idle(plan, num_fired, num_shown, reason),
            "thresholds": _last_thresholds(plan, by_layer),
            "layers": counts,
            "acted_on": _acted_on(by_layer) if options.compares_norms else None,
            "extra_layer_passes": extra,
            "share_of_layer_passes": round(extra / (extra + ordinary), 6) if ordinary else 0.0,
        }
        if options.mode == "block":
            moved = next((loop.moved() for loop in self.block_loop.values()), None)
            report |= {"block": list(plan.layers), "moved": moved}
        return report

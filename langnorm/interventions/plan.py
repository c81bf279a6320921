"""What an intervention does in one request: its options with the thresholds of its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from langnorm.checks import build_options, check_number, refuse
from langnorm.errors import OptionError, closest
from langnorm.interventions.layer_threshold import KnownTau, LayerThreshold, RunningTau
from langnorm.interventions.options import Intervention, Recursion, Steering, Suppression, check_layers
from langnorm.norms.thresholds import RunningThreshold

Options = TypeVar("Options", bound=Intervention, covariant=True)


@dataclass(frozen=True, slots=True)
class Plan(Generic[Options]):
    """One intervention of one request.

    Attributes:
        options: The user's.
        layers: The selected layers, ascending.
        thresholds: `tau_l` of each of them, where these are known beforehand. None for the running rule; for any other
            one there is nothing to go by then, and nothing is done.
    """

    options: Options
    layers: tuple[int, ...]
    thresholds: tuple[float, ...] | None

    @property
    def is_active(self) -> bool:
        """Whether there are thresholds to go by; without, nothing is done."""
        return self.thresholds is not None or self.running is not None

    @property
    def running(self) -> RunningThreshold | None:
        """The rule by which each sequence finds its thresholds; None where these are known beforehand."""
        rule = self.options.rule
        return rule if isinstance(rule, RunningThreshold) and self.thresholds is None else None

    def new_threshold(self, layer: int) -> LayerThreshold:
        """Return what one sequence is compared with at one of the layers of an active plan."""
        if running := self.running:
            return RunningTau(running)
        assert self.thresholds is not None
        return KnownTau(self.thresholds[self.layers.index(layer)])

    def to_dict(self) -> dict[str, Any]:
        """Return the plan in plain JSON types, for `Plans.from_dict`."""
        thresholds = None if self.thresholds is None else list(self.thresholds)
        return {"options": self.options.to_dict(), "layers": list(self.layers), "thresholds": thresholds}


@dataclass(frozen=True, slots=True)
class Plans:
    """The interventions of one request."""

    recursion: Plan[Recursion] | None = None
    steering: Plan[Steering] | None = None
    suppression: Plan[Suppression] | None = None

    def all(self) -> tuple[Plan[Any], ...]:
        """Return the plans that are not None."""
        return tuple(plan for plan in (self.recursion, self.steering, self.suppression) if plan is not None)

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers that may be acted on, ascending."""
        return tuple(sorted({layer for plan in self.all() if plan.is_active for layer in plan.layers}))

    @property
    def act_on_prompt(self) -> bool:
        """Whether the states of the prompt's tokens may be acted on too."""
        recursion = self.recursion
        return recursion is not None and recursion.is_active and not recursion.options.only_decode

    def to_dict(self) -> dict[str, Any]:
        """Return the plans in plain JSON types, by the name of the intervention; `from_dict` makes them again."""
        return {plan.options.name: plan.to_dict() for plan in self.all()}

    @classmethod
    def from_dict(cls, plans: Mapping[str, Any]) -> Plans:
        """Return the plans that `to_dict` has written.

        Raises:
            OptionError: A name is unknown, a field is missing, or a value is not allowed.
        """
        if not isinstance(plans, Mapping):
            refuse("plans", plans, "what `Plans.to_dict` returned: a mapping by the names of interventions")
        return cls(**{name: _build_plan(name, fields) for name, fields in plans.items()})


_OPTIONS: dict[str, type[Intervention]] = {kind.name: kind for kind in (Recursion, Steering, Suppression)}
_FIELDS = ("options", "layers", "thresholds")


def _build_plan(name: str, fields: Any) -> Plan[Any]:
    if name not in _OPTIONS:
        msg = f"There is no intervention `{name}`. Use {', '.join(f'`{known}`' for known in _OPTIONS)}."
        raise OptionError(msg + closest(str(name), _OPTIONS))
    if not isinstance(fields, Mapping) or set(fields) != set(_FIELDS):
        refuse("plan", fields, f"a mapping with {', '.join(f'`{field}`' for field in _FIELDS)}", owner=name)
    options = build_options(_OPTIONS[name], name, fields["options"])
    if options is None:
        refuse("options", None, "a mapping of the fields of the options", owner=name)
    layers, thresholds = fields["layers"], fields["thresholds"]
    check_layers("layers", layers, owner=name)
    if thresholds is not None:
        if not isinstance(thresholds, Sequence) or len(thresholds) != len(layers):
            refuse("thresholds", thresholds, f"one norm for each of the layers `{list(layers)}`, or None", owner=name)
        for threshold in thresholds:
            check_number("thresholds", threshold, low=0, owner=name)
        thresholds = tuple(map(float, thresholds))
    return Plan(options, tuple(layers), thresholds)

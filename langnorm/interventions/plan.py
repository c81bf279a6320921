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
        thresholds: `tau_l` of each of `acts_after`, where these are known beforehand. None for the running rule and for
            what compares no norms; for any other rule there is nothing to go by then, and nothing is done.

    Raises:
        OptionError: The layers cannot be acted on together.
    """

    options: Options
    layers: tuple[int, ...]
    thresholds: tuple[float, ...] | None

    def __post_init__(self) -> None:
        self.options.acts_after(self.layers)

    @property
    def acts_after(self) -> tuple[int, ...]:
        """The layers after which norms are compared and states change, ascending."""
        return self.options.acts_after(self.layers)

    @property
    def is_active(self) -> bool:
        """Whether there are thresholds to go by, or none are needed; else nothing is done."""
        return self.thresholds is not None or self.running is not None or not self.options.compares_norms

    @property
    def running(self) -> RunningThreshold | None:
        """The rule by which each sequence finds its thresholds; None where these are known beforehand."""
        rule = self.options.rule if self.options.compares_norms and self.thresholds is None else None
        return rule if isinstance(rule, RunningThreshold) else None

    def new_threshold(self, layer: int) -> LayerThreshold:
        """Return what one sequence is compared with after one of the layers of an active plan that compares norms."""
        if running := self.running:
            return RunningTau(running)
        assert self.thresholds is not None
        return KnownTau(self.thresholds[self.acts_after.index(layer)])

    def to_dict(self) -> dict[str, Any]:
        """Return the plan in plain JSON types, for `Plans.from_dict`."""
        thresholds = None if self.thresholds is None else list(self.thresholds)
        return {"options": self.options.to_dict(), "layers": list(self.layers), "thresholds": thresholds}


@dataclass(frozen=True, slots=True)
class Plans:
    """The interventions of one request.

    Raises:
        OptionError: States would be changed inside a block of layers that recursion runs as one.
    """

    recursion: Plan[Recursion] | None = None
    steering: Plan[Steering] | None = None
    suppression: Plan[Suppression] | None = None

    def __post_init__(self) -> None:
        inside = set(self.recursion.layers) - {*self.recursion.acts_after} if self.recursion else set()
        for plan in filter(None, (self.steering, self.suppression)):
            if shared := sorted(inside & {*plan.layers}):
                msg = (
                    f"`{plan.options.name}` is to change states after the layers {shared}, inside the block that "
                    "`recursion` runs as one. Give it `layers` before the block, or from its last layer on."
                )
                raise OptionError(msg)

    def all(self) -> tuple[Plan[Any], ...]:
        """Return the plans that are not None."""
        return tuple(plan for plan in (self.recursion, self.steering, self.suppression) if plan is not None)

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers after which states may be changed, ascending."""
        return tuple(sorted({layer for plan in self.all() if plan.is_active for layer in plan.acts_after}))

    @property
    def act_on_prompt(self) -> bool:
        """Whether the states of the prompt's tokens may be acted on too."""
        return any(plan.is_active and plan.options.acts_on_prompt for plan in self.all())

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
    if isinstance(layers, str):
        refuse("layers", layers, "a list of indices", owner=name)
    compared = options.acts_after(tuple(layers))
    if thresholds is not None:
        if not isinstance(thresholds, Sequence) or len(thresholds) != len(compared):
            refuse("thresholds", thresholds, f"one norm for each of the layers `{list(compared)}`, or None", owner=name)
        for threshold in thresholds:
            check_number("thresholds", threshold, low=0, owner=name)
        thresholds = tuple(map(float, thresholds))
    return Plan(options, tuple(layers), thresholds)

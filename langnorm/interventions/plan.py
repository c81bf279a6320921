"""What an intervention does in one request: its options with the thresholds of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from langnorm.interventions.options import Intervention, Recursion, Steering, Suppression

Options = TypeVar("Options", bound=Intervention, covariant=True)


@dataclass(frozen=True, slots=True)
class Plan(Generic[Options]):
    """One intervention of one request.

    Attributes:
        options: The user's.
        layers: The selected layers, ascending.
        thresholds: `tau_l` of each of them; None while there is nothing to go by, and then nothing is done.
    """

    options: Options
    layers: tuple[int, ...]
    thresholds: tuple[float, ...] | None

    @property
    def is_active(self) -> bool:
        """Whether it can do anything at all."""
        return self.thresholds is not None

    def threshold_at(self, layer: int) -> float:
        """Return `tau_l` of one of the layers of an active plan."""
        assert self.thresholds is not None
        return self.thresholds[self.layers.index(layer)]

    def thresholds_by_layer(self) -> dict[str, float] | None:
        """Return the thresholds as a message carries them."""
        if self.thresholds is None:
            return None
        return {str(layer): value for layer, value in zip(self.layers, self.thresholds, strict=True)}


@dataclass(frozen=True, slots=True)
class Plans:
    """The interventions of one request."""

    recursion: Plan[Recursion] | None = None
    steering: Plan[Steering] | None = None
    suppression: Plan[Suppression] | None = None

    def all(self) -> tuple[Plan[Any], ...]:
        """Return those that there are."""
        return tuple(plan for plan in (self.recursion, self.steering, self.suppression) if plan is not None)

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers that may be acted on, ascending."""
        return tuple(sorted({layer for plan in self.all() if plan.is_active for layer in plan.layers}))

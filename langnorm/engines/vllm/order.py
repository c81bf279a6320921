"""What vLLM's workers are told of a sequence, and what they answer: plain types, for these travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from langnorm.interventions.plan import Plans


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be recorded of a sequence, and done to it.

    Attributes:
        key: Its name, which vLLM does not change.
        num_prompt_tokens: Length of its prompt.
        layers: The layers whose norms are recorded.
        records_prompt: Whether the tokens of the prompt are recorded too.
        plans: What is done to its states.
        seed: Of its request.
        sample: Its number among the samples of the request.
        is_trial: Whether every layer is also run again in its passes, to see what comes of it.
    """

    key: str
    num_prompt_tokens: int
    layers: tuple[int, ...] = ()
    records_prompt: bool = False
    plans: Plans = field(default_factory=Plans)
    seed: int = 0
    sample: int = 0
    is_trial: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain types, for `extra_args` of vLLM's `SamplingParams`."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {"layers": list(self.layers), "plans": self.plans.to_dict()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Order:
        """Return what `to_dict` has written."""
        return cls(**{**fields, "layers": tuple(fields["layers"]), "plans": Plans.from_dict(fields["plans"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was recorded of a sequence.

    Attributes:
        first_position: Of the token of the first row.
        norms: The rows (T, L), float32, in memory one after the other; a column for each layer of the order.
        interventions: What was done to its states, as `Completion` has it.
    """

    first_position: int
    norms: bytes
    interventions: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain types."""
        return asdict(self)

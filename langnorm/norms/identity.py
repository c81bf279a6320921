"""What model a distribution of norms was fitted on."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What a profile is tied to; the same for every engine that runs the same weights.

    Attributes:
        model: Class of the model, as its configuration names it.
        weights: Hash over a sample of every weight, which any other model or fine-tune changes.
        dtype: In which the model computes.
        num_layers: Number of decoder layers.
        chat_template: Hash of the chat template: another one puts other text in front of every answer.
    """

    model: str
    weights: str
    dtype: str
    num_layers: int
    chat_template: str

    def differences(self, other: ModelIdentity) -> list[str]:
        """Return what is not the same, in words; nothing for the same model."""
        names = [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]
        if self.dtype != other.dtype and "weights" in names:
            names.remove("weights")  # of weights in memory the dtype changes the hash: it is the reason to name
        return [
            f"{name.replace('_', ' ')} `{getattr(self, name)}` here, `{getattr(other, name)}` there" for name in names
        ]

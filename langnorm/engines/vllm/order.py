"""What vLLM's workers are told of a sequence, and what they answer: plain types, for these travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Grammar, ReasoningMarks
from langnorm.interventions.plan import Plans

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""The options of `Sampling` by which a single token is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be recorded of a sequence, and done to it, and how its tokens are chosen.

    Attributes:
        key: Its name, which vLLM does not change.
        num_prompt_tokens: Length of its prompt.
        layers: The layers whose norms are recorded.
        records_prompt: Whether the tokens of the prompt are recorded too.
        records_distribution: Whether the distributions of its tokens are reduced.
        plans: What is done to its states.
        sampling: How its tokens are chosen.
        seed: Of its request.
        sample: Its number among the samples of the request.
        grammar: What it is held to, or None.
        max_tokens: Most tokens of the answer.
        end_ids: Tokens that end it.
        penalized_ids: The prompt, where its tokens are made less likely.
        is_trial: Whether every layer is also run again in its passes, to see what comes of it.
    """

    key: str
    num_prompt_tokens: int
    layers: tuple[int, ...] = ()
    records_prompt: bool = False
    records_distribution: bool = False
    plans: Plans = field(default_factory=Plans)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    sample: int = 0
    grammar: Grammar | None = None
    max_tokens: int = 1
    end_ids: tuple[int, ...] = ()
    penalized_ids: tuple[int, ...] = ()
    is_trial: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain types, for `extra_args` of vLLM's `SamplingParams`."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return plain | {
            "layers": list(self.layers),
            "end_ids": list(self.end_ids),
            "penalized_ids": list(self.penalized_ids),
            "plans": self.plans.to_dict(),
            "sampling": {name: getattr(self.sampling, name) for name in _SAMPLING},
            "grammar": asdict(self.grammar) if self.grammar else None,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Order:
        """Return what `to_dict` has written."""
        lists = {name: tuple(plain[name]) for name in ("layers", "end_ids", "penalized_ids")}
        plans, sampling = Plans.from_dict(plain["plans"]), Sampling(**plain["sampling"])
        return cls(**{**plain, **lists, "plans": plans, "sampling": sampling, "grammar": _grammar(plain["grammar"])})


def _grammar(plain: Mapping[str, Any] | None) -> Grammar | None:
    if plain is None:
        return None
    marks = plain["reasoning"]
    return Grammar(plain["lark"], plain["least_tokens"], ReasoningMarks(**marks) if marks else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was recorded of a sequence.

    Attributes:
        norms: The rows (T, L), float32, in memory one after the other; a column for each layer of the order.
        distribution: The rows (T, 6) of `Distribution`, likewise; what they say of the token that was chosen is left
            open.
        interventions: What was done to its states, as `Completion` has it.
    """

    norms: bytes
    distribution: bytes
    interventions: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain types."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

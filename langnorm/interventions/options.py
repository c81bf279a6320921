"""The options of recursion, steering and suppression: frozen, checked when they are made, free of torch.

Defaults are the constants of the paper's reference code (arXiv 2606.06188).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from langnorm.errors import OptionError, closest
from langnorm.norms.layers import LayerSelection, select_layers
from langnorm.norms.thresholds import IQRThreshold, ReferenceThreshold, ThresholdRule, threshold_rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """What all interventions have in common.

    Attributes:
        layers: `"late"`, `"all"` or 0-based indices of decoder layers.
        threshold: Which norms are high, in any form that `threshold_rule` takes; kept as a rule.

    Raises:
        OptionError: A value is not allowed.
    """

    name: ClassVar[str] = "intervention"

    layers: LayerSelection = "late"
    threshold: Any = field(default_factory=IQRThreshold)

    def __post_init__(self) -> None:
        rule = threshold_rule(self.threshold)
        if isinstance(rule, ReferenceThreshold):
            msg = (
                "The threshold rule `reference` changes from token to token and can only be read, not acted on. "
                'Use "iqr", a quantile, or numbers by layer.'
            )
            raise OptionError(msg)
        object.__setattr__(self, "threshold", rule)
        if isinstance(self.layers, str):
            select_layers(self.layers, 1)  # this is the check
        else:
            object.__setattr__(self, "layers", tuple(self.layers))

    @property
    def rule(self) -> ThresholdRule:
        """The threshold rule."""
        rule: ThresholdRule = self.threshold
        return rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Recursion(Intervention):
    """Runs a layer again for tokens whose norm is high there (ALRR).

    Attributes:
        alpha: Share of the new state in the mixture of old and new, in (0, 1].
        max_extra: Most extra passes of a token through a layer.
        growth_eps: Least relative growth of the norm at which a new state is taken.
        blowup: A norm of this many thresholds and more is neither run again nor taken; 1 or above.
        eps: Added to the norm that growth is relative to.
        block: Number of consecutive layers that are run again together, the selected one being the last.
        only_decode: Whether the tokens of the prompt are left alone.
    """

    name: ClassVar[str] = "recursion"

    alpha: float = 1.0
    max_extra: int = 1
    growth_eps: float = 0.2
    blowup: float = 1.5
    eps: float = 1e-6
    block: int = 1
    only_decode: bool = True

    def __post_init__(self) -> None:
        Intervention.__post_init__(self)
        _number(self, "alpha", 0, 1, is_low_open=True)
        _integer(self, "max_extra", 0)
        _number(self, "growth_eps", -math.inf)
        _number(self, "blowup", 1)
        _number(self, "eps", 0)
        _integer(self, "block", 1)
        _flag(self, "only_decode")

    @classmethod
    def paper(cls, **options: Any) -> Recursion:
        """Return the constants with which the paper's benchmarks were run."""
        return cls(**({"alpha": 1.0, "max_extra": 1, "growth_eps": 0.2, "blowup": 1.5, "eps": 1e-6} | options))

    @classmethod
    def demo(cls, **options: Any) -> Recursion:
        """Return the constants of the paper's demonstration, which recurse more."""
        return cls(**({"alpha": 1.0, "max_extra": 10, "growth_eps": 0.01, "blowup": 7.0, "eps": 1e-6} | options))


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering(Intervention):
    """Pulls a state that has gone slack toward the sequence's own high-norm states (ERSS).

    Attributes:
        bank_size: Number of states of highest norm that a sequence keeps per layer.
        low_k: Tokens in a row below `gamma` thresholds after which a state counts as slack.
        gamma: See `low_k`.
        p_inject: Probability with which a slack state is pulled.
        beta: Share of the way to the kept state that is most similar to it, in (0, 1].
        cos_min: Least cosine similarity to that state.
        cooldown: Tokens after a pull in which there is none.
    """

    name: ClassVar[str] = "steering"

    bank_size: int = 32
    low_k: int = 40
    gamma: float = 1.0
    p_inject: float = 0.2
    beta: float = 0.5
    cos_min: float = 0.5
    cooldown: int = 32

    def __post_init__(self) -> None:
        Intervention.__post_init__(self)
        _integer(self, "bank_size", 1)
        _integer(self, "low_k", 1)
        _number(self, "gamma", 0)
        _number(self, "p_inject", 0, 1)
        _number(self, "beta", 0, 1, is_low_open=True)
        _number(self, "cos_min", -1, 1)
        _integer(self, "cooldown", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression(Intervention):
    """Shrinks states, to see whether their norm mattered: the paper's causal check.

    Attributes:
        mode: `"high"` shrinks states of high norm; `"random"`, the control, as many at random moments after these.
        action: `"mul"` multiplies by `factor`; `"clamp"` brings the norm down to a quarter of the threshold.
        factor: See `action`, in [0, 1).
    """

    name: ClassVar[str] = "suppression"

    mode: Literal["high", "random"] = "high"
    action: Literal["mul", "clamp"] = "mul"
    factor: float = 0.1

    def __post_init__(self) -> None:
        Intervention.__post_init__(self)
        _choice(self, "mode", ("high", "random"))
        _choice(self, "action", ("mul", "clamp"))
        _number(self, "factor", 0, 1, is_high_open=True)


def _number(
    options: Intervention,
    name: str,
    low: float,
    high: float = math.inf,
    *,
    is_low_open: bool = False,
    is_high_open: bool = False,
) -> None:
    value = getattr(options, name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    is_open_end = (is_low_open and value == low) or (is_high_open and value == high)
    if is_number and low <= value <= high and not is_open_end:
        return
    lowest = "any number" if low == -math.inf else f"a number {'above' if is_low_open else 'from'} {low}"
    highest = "" if high == math.inf else f" {'below' if is_high_open else 'to'} {high}"
    raise OptionError(_not_allowed(options, name, lowest + (f",{highest}" if highest else "")))


def _integer(options: Intervention, name: str, low: int) -> None:
    value = getattr(options, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise OptionError(_not_allowed(options, name, f"an integer from {low}"))


def _flag(options: Intervention, name: str) -> None:
    if not isinstance(getattr(options, name), bool):
        raise OptionError(_not_allowed(options, name, "True or False"))


def _choice(options: Intervention, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(options, name)
    if value not in allowed:
        words = " or ".join(f'"{word}"' for word in allowed)
        raise OptionError(_not_allowed(options, name, words) + closest(str(value), allowed))


def _not_allowed(options: Intervention, name: str, allowed: str) -> str:
    return f"`{name}={getattr(options, name)!r}` of `{options.name}` is not allowed. Use {allowed}."

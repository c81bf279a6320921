"""The options of recursion, steering and suppression: frozen, checked when they are made, free of torch.

Defaults are the rules of the paper's text with the constants of its reference code (arXiv 2606.06188).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from langnorm.checks import check_choice, check_flag, check_integer, check_number, refuse
from langnorm.errors import OptionError
from langnorm.norms.layers import LayerSelection, is_index, select_layers
from langnorm.norms.thresholds import (
    ReferenceThreshold,
    RunningThreshold,
    ThresholdRule,
    threshold_rule,
    threshold_rule_to_dict,
)

ThresholdOption = ThresholdRule | Mapping[Any, Any] | str | float
"""What the option `threshold` takes, in the words of `threshold_rule`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """What all interventions have in common.

    Attributes:
        layers: `"late"`, `"deep"`, `"all"` or 0-based indices of decoder layers.
        threshold: Which norms are high, in any form that `threshold_rule` takes; kept as a rule. The norms compared are
            those that reach the intervention; with `"running"`, a token's own counts only for the tokens after it.

    Raises:
        OptionError: A value is not allowed.
    """

    name: ClassVar[str] = "intervention"

    layers: LayerSelection = "late"
    threshold: ThresholdOption = field(default_factory=RunningThreshold)

    def __post_init__(self) -> None:
        rule = threshold_rule(self.threshold)
        if isinstance(rule, ReferenceThreshold):
            msg = (
                "The threshold rule `reference` changes from token to token and can only be read, not acted on. "
                'Use "running", "iqr", a quantile, or numbers by layer.'
            )
            raise OptionError(msg)
        object.__setattr__(self, "threshold", rule)
        check_layers("layers", self.layers, owner=self.name)
        if not isinstance(self.layers, str):
            object.__setattr__(self, "layers", tuple(map(operator.index, self.layers)))

    @property
    def rule(self) -> ThresholdRule:
        """The threshold rule."""
        return threshold_rule(self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Return the options in plain JSON types, as `build_options` takes them."""
        options = {option.name: getattr(self, option.name) for option in fields(self)}
        layers = self.layers if isinstance(self.layers, str) else list(self.layers)
        return options | {"layers": layers, "threshold": threshold_rule_to_dict(self.rule)}


def check_layers(name: str, layers: object, *, owner: str) -> None:
    """Raise `OptionError` unless a value selects decoder layers, as far as that can be said without a model.

    Args:
        name: Of the option.
        layers: What was given.
        owner: What the option belongs to, such as `recursion`.
    """
    if isinstance(layers, str | bytes) or not isinstance(layers, Sequence) or not layers:
        select_layers(layers, 1)  # type: ignore[arg-type]  # it refuses what is no selection of any model
    elif not all(map(is_index, layers)):
        refuse(name, layers, '"late", "deep", "all" or a list of indices such as `[20, -2]`', owner)


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
        only_decode: Whether the tokens of the prompt are left alone. False needs a threshold that is known before the
            answer begins: any but `"running"`.
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
        check_number("alpha", self.alpha, owner=self.name, low=0, high=1, is_low_open=True)
        check_integer("max_extra", self.max_extra, owner=self.name, low=0)
        check_number("growth_eps", self.growth_eps, owner=self.name)
        check_number("blowup", self.blowup, owner=self.name, low=1)
        check_number("eps", self.eps, owner=self.name, low=0)
        check_integer("block", self.block, owner=self.name, low=1)
        check_flag("only_decode", self.only_decode, owner=self.name)
        if not self.only_decode and isinstance(self.rule, RunningThreshold):
            msg = (
                "`only_decode=False` of `recursion` acts on the prompt too, and the running threshold is known only "
                'while the answer is written. Give a `threshold`: "iqr", a quantile, or numbers by layer.'
            )
            raise OptionError(msg)

    @classmethod
    def paper(cls, **options: Any) -> Recursion:
        """Return the constants with which the paper's benchmarks were run."""
        return cls(**({"alpha": 1.0, "max_extra": 1, "growth_eps": 0.2, "blowup": 1.5, "eps": 1e-6} | options))

    @classmethod
    def demo(cls, **options: Any) -> Recursion:
        """Return the constants of the paper's demonstration, which recurse more."""
        return cls(**({"alpha": 1.0, "max_extra": 10, "growth_eps": 0.01, "blowup": 7.0, "eps": 1e-6} | options))


_OF_SLACK = ("low_k", "gamma", "p_inject", "cooldown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering(Intervention):
    """Pulls a state toward an earlier one of high norm of the same sequence (ERSS).

    Attributes:
        trigger: When. `"peak"`, the rule of the paper's text, pulls every state whose norm is above its threshold,
            before it is kept itself; `"slack"`, that of its code, pulls after many tokens in a row whose norm is low.
        bank_size: Number of states of highest norm that a sequence keeps per layer.
        beta: Share of the way to the kept state that is most similar to it, in (0, 1].
        cos_min: Least cosine similarity to that state.
        low_k: Of `"slack"`: tokens in a row below `gamma` thresholds after which a state counts as slack.
        gamma: Of `"slack"`: see `low_k`.
        p_inject: Of `"slack"`: probability with which a slack state is pulled. Peaks are rare, and all of them are.
        cooldown: Of `"slack"`: tokens after a pull in which there is none.

    Raises:
        OptionError: A value is not allowed, or an option of `"slack"` was set for `"peak"`.
    """

    name: ClassVar[str] = "steering"

    trigger: Literal["peak", "slack"] = "peak"
    bank_size: int = 32
    beta: float = 0.5
    cos_min: float = 0.5
    low_k: int = 40
    gamma: float = 1.0
    p_inject: float = 0.2
    cooldown: int = 32

    def __post_init__(self) -> None:
        Intervention.__post_init__(self)
        check_choice("trigger", self.trigger, ("peak", "slack"), owner=self.name)
        check_integer("bank_size", self.bank_size, owner=self.name, low=1)
        check_integer("low_k", self.low_k, owner=self.name, low=1)
        check_number("gamma", self.gamma, owner=self.name, low=0)
        check_number("p_inject", self.p_inject, owner=self.name, low=0, high=1)
        check_number("beta", self.beta, owner=self.name, low=0, high=1, is_low_open=True)
        check_number("cos_min", self.cos_min, owner=self.name, low=-1, high=1)
        check_integer("cooldown", self.cooldown, owner=self.name, low=0)
        defaults = {option.name: option.default for option in fields(self)}
        for option in _OF_SLACK if self.trigger == "peak" else ():
            if (value := getattr(self, option)) != defaults[option]:
                msg = (
                    f'`{option}={value}` of `steering` is for states that have gone slack, and with `trigger="peak"` '
                    f'those of high norm are pulled. Add `trigger="slack"`, or leave `{option}` out.'
                )
                raise OptionError(msg)


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
        check_choice("mode", self.mode, ("high", "random"), owner=self.name)
        check_choice("action", self.action, ("mul", "clamp"), owner=self.name)
        check_number("factor", self.factor, owner=self.name, low=0, high=1, is_high_open=True)

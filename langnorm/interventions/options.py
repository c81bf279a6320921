"""The options of recursion, steering and suppression: frozen, checked when they are made, free of torch.

Defaults are the rules of the paper's text with the constants of its reference code (arXiv 2606.06188), but for the
strength of steering.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
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
        layers: `"late"`, `"deep"`, `"middle"`, `"all"` or 0-based indices of decoder layers.
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

    @property
    def compares_norms(self) -> bool:
        """Whether what is done depends on norms and their thresholds."""
        return True

    @property
    def acts_on_prompt(self) -> bool:
        """Whether the states of the prompt's tokens may be acted on too."""
        return False

    def acts_after(self, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Return after which of the selected layers norms are compared and states change.

        Args:
            layers: The selected layers of a model, ascending.

        Raises:
            OptionError: They cannot be acted on together.
        """
        return layers

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
        refuse(name, layers, '"late", "deep", "middle", "all" or a list of indices such as `[20, -2]`', owner)


def _refuse_set(options: Intervention, names: Sequence[str], why: str, mend: str) -> None:
    """Raise `OptionError` if an option that means nothing beside the others was set."""
    defaults = {option.name: option.default for option in fields(options)}
    for name in names:
        if (value := getattr(options, name)) != defaults[name]:
            msg = f"`{name}={value}` of `{options.name}` {why}. {mend}, or leave `{name}` out."
            raise OptionError(msg)


_OF_LAYERS = ("alpha", "max_extra", "growth_eps", "blowup", "eps", "block", "only_decode")
_OF_BLOCK = ("on", "num_loops", "anchor")
_BY_MODE: Any = object()  # the layers, where none were given


@dataclass(frozen=True, slots=True, kw_only=True)
class Recursion(Intervention):
    """Runs layers again.

    With `mode="layer"`, a layer for tokens whose norm is high there (ALRR, arXiv 2606.06188). With `mode="block"`, the
    damped loop of arXiv 2605.23872: a block g of consecutive layers, K times. From the state x_0 that enters it,

        x_k = (1 - 1/K) x_(k-1) + (1/K) g(x_(k-1));  out = b g(x_0) + (1 - b) x_K

    The first pass is the one that writes keys and values; later passes read these. Where layers inside the block are
    recorded, what they put out in the first pass is.

    Attributes:
        layers: By default `"late"`; with `mode="block"` the block, which is `"middle"`.
        mode: See above.
        on: Of `"block"`: `"decode"` acts on every token of the answer, `"prefill"` on every token of the prompt, and
            `"peaks"` on tokens of the answer whose norm after the block is above the threshold, which the other two
            do not have.
        num_loops: Of `"block"`: K; 1 changes nothing.
        anchor: Of `"block"`: b, the share of the first pass, in [0, 1].
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

    layers: LayerSelection = _BY_MODE
    mode: Literal["layer", "block"] = "layer"
    on: Literal["prefill", "decode", "peaks"] = "decode"
    num_loops: int = 2
    anchor: float = 0.5
    alpha: float = 1.0
    max_extra: int = 1
    growth_eps: float = 0.2
    blowup: float = 1.5
    eps: float = 1e-6
    block: int = 1
    only_decode: bool = True

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("layer", "block"), owner=self.name)
        if self.layers is _BY_MODE:
            object.__setattr__(self, "layers", "middle" if self.mode == "block" else "late")
        Intervention.__post_init__(self)
        check_choice("on", self.on, ("prefill", "decode", "peaks"), owner=self.name)
        check_integer("num_loops", self.num_loops, owner=self.name, low=1)
        check_number("anchor", self.anchor, owner=self.name, low=0, high=1)
        check_number("alpha", self.alpha, owner=self.name, low=0, high=1, is_low_open=True)
        check_integer("max_extra", self.max_extra, owner=self.name, low=0)
        check_number("growth_eps", self.growth_eps, owner=self.name)
        check_number("blowup", self.blowup, owner=self.name, low=1)
        check_number("eps", self.eps, owner=self.name, low=0)
        check_integer("block", self.block, owner=self.name, low=1)
        check_flag("only_decode", self.only_decode, owner=self.name)
        self._check_mode()
        if not self.only_decode and isinstance(self.rule, RunningThreshold):
            msg = (
                "`only_decode=False` of `recursion` acts on the prompt too, and the running threshold is known only "
                'while the answer is written. Give a `threshold`: "iqr", a quantile, or numbers by layer.'
            )
            raise OptionError(msg)

    def _check_mode(self) -> None:
        """Raise `OptionError` if an option of the other mode was set, or a block is none."""
        if self.mode == "layer":
            _refuse_set(self, _OF_BLOCK, "is for the damped loop of a block of layers", 'Add `mode="block"`')
            return
        _refuse_set(self, _OF_LAYERS, 'is not for the loop of `mode="block"`', 'Use `mode="layer"`')
        if self.on != "peaks" and self.rule != RunningThreshold():
            msg = (
                f'`threshold` of `recursion` has no use with `mode="block"` and `on="{self.on}"`, which acts on every '
                'token. Add `on="peaks"`, or leave `threshold` out.'
            )
            raise OptionError(msg)
        if not isinstance(self.layers, str) and (min(self.layers) >= 0 or max(self.layers) < 0):
            self.acts_after(tuple(sorted(set(self.layers))))

    @property
    def compares_norms(self) -> bool:
        """Whether what is done depends on norms and their thresholds."""
        return self.mode == "layer" or self.on == "peaks"

    @property
    def acts_on_prompt(self) -> bool:
        """Whether the states of the prompt's tokens may be acted on too."""
        return self.on == "prefill" if self.mode == "block" else not self.only_decode

    def acts_after(self, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Return after which of the selected layers states change: the last one of a block.

        Raises:
            OptionError: The layers of a block do not follow each other.
        """
        if self.mode == "layer":
            return layers
        if layers != tuple(range(layers[0], layers[-1] + 1)):
            msg = (
                f'The layers {list(layers)} of `recursion` do not follow each other, and `mode="block"` runs one block '
                f'of layers. Use such as `layers={list(range(layers[0], layers[0] + 4))}`, or `"middle"`.'
            )
            raise OptionError(msg)
        return layers[-1:]

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
        beta: Share of the way to the kept state that is most similar to it, in (0, 1]. The paper's code has 0.5, by
            which most models that were tried answer worse.
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
    beta: float = 0.1
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
        if self.trigger == "peak":
            why = 'is for states that have gone slack, and with `trigger="peak"` those of high norm are pulled'
            _refuse_set(self, _OF_SLACK, why, 'Add `trigger="slack"`')


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression(Intervention):
    """Shrinks states, to see whether their norm mattered: the paper's causal check.

    Attributes:
        mode: `"high"` shrinks states of high norm; `"random"`, the control, as many at random moments after these;
            `"mask"` those of the tokens that `mask` names, whatever their norms.
        action: `"mul"` multiplies by `factor`; `"clamp"` brings the norm down to a quarter of the threshold, which a
            mask needs for this alone.
        factor: Of `"mul"`: see `action`, in [0, 1).
        mask: Of `"mask"`: indices of tokens of the answer, from 0, for each of `layers`, which are ascending indices.
    """

    name: ClassVar[str] = "suppression"

    mode: Literal["high", "random", "mask"] = "high"
    action: Literal["mul", "clamp"] = "mul"
    factor: float = 0.1
    mask: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        Intervention.__post_init__(self)
        check_choice("mode", self.mode, ("high", "random", "mask"), owner=self.name)
        check_choice("action", self.action, ("mul", "clamp"), owner=self.name)
        check_number("factor", self.factor, owner=self.name, low=0, high=1, is_high_open=True)
        if self.action == "clamp":
            _refuse_set(self, ("factor",), 'has no use with `action="clamp"`', 'Use `action="mul"`')
        self._check_mask()

    def _check_mask(self) -> None:
        """Raise `OptionError` unless there is a list of tokens for each layer, or no mask and another mode."""
        if self.mode != "mask":
            _refuse_set(self, ("mask",), f'has no use with `mode="{self.mode}"`', 'Add `mode="mask"`')
            return
        layers = self.layers
        if isinstance(layers, str) or any(low >= high for low, high in pairwise((-1, *layers))):
            refuse("layers", layers, 'ascending indices such as `[20, 21]` with `mode="mask"`', self.name)
        lists: Any = self.mask if isinstance(self.mask, Sequence) else ()
        are_steps = all(
            isinstance(steps, Sequence) and all(is_index(step) and operator.index(step) >= 0 for step in steps)
            for steps in lists
        )
        if len(lists) != len(layers) or not are_steps:
            allowed = f"a list of indices of tokens, from 0, for each of the layers {list(layers)}"
            refuse("mask", self.mask, allowed, self.name)
        object.__setattr__(self, "mask", tuple(tuple(sorted(set(map(operator.index, steps)))) for steps in lists))

    @property
    def compares_norms(self) -> bool:
        """Whether what is done depends on norms and their thresholds."""
        return self.mode != "mask" or self.action == "clamp"

    def to_dict(self) -> dict[str, Any]:
        """Return the options in plain JSON types, as `build_options` takes them."""
        mask = None if self.mask is None else [list(steps) for steps in self.mask]
        return Intervention.to_dict(self) | {"mask": mask}

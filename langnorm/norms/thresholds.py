"""Which norm is high: a threshold `tau_l` per decoder layer, from numbers, a distribution or the paper's estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

from langnorm.checks import brief, check_integer, check_number
from langnorm.errors import OptionError, closest

if TYPE_CHECKING:
    from langnorm.norms.sketch import QuantileSketch


@dataclass(frozen=True, slots=True)
class FixedThreshold:
    """`tau_l` is a number given by the user, as are the published ones of arXiv 2606.06188.

    Attributes:
        values: One norm for all layers, or one per 0-based layer index (which JSON writes as a text).

    Raises:
        OptionError: A value is not a number from 0 up, or a key is no layer.
    """

    values: Mapping[int, float] | float

    def __post_init__(self) -> None:
        values, allowed = self.values, "a norm from 0 up, or one per layer such as `{21: 1300.0}`"
        if not isinstance(values, Mapping):
            _check("values", values, allowed=allowed)
            return
        if not _is_per_layer(values):
            raise OptionError(_not_allowed("values", values, allowed))
        for layer, value in values.items():
            _check(f"values[{layer}]", value, allowed="a norm from 0 up")
        object.__setattr__(self, "values", {int(layer): value for layer, value in values.items()})

    def __hash__(self) -> int:
        values = self.values
        return hash(frozenset(values.items()) if isinstance(values, Mapping) else values)

    def of(self, layers: Sequence[int]) -> tuple[float, ...]:
        """Return the thresholds of these layers, in their order.

        Raises:
            OptionError: A layer has none.
        """
        values = self.values
        if not isinstance(values, Mapping):
            return (float(values),) * len(layers)
        missing = [layer for layer in layers if layer not in values]
        if missing:
            msg = (
                f"Layers `{missing}` have no threshold; `{sorted(values)}` have one. "
                "Give one to each recorded layer, or record only layers that have one."
            )
            raise OptionError(msg)
        return tuple(float(values[layer]) for layer in layers)


@dataclass(frozen=True, slots=True)
class QuantileThreshold:
    """`tau_l` is the q-quantile of `n_t^l` over a calibration run or over what the engine has seen.

    Attributes:
        q: Between 0 and 1; 0.9 calls one token in ten high.

    Raises:
        OptionError: `q` is outside 0 to 1.
    """

    q: float = 0.9

    def __post_init__(self) -> None:
        _check("q", self.q, high=1, allowed="a number between 0 and 1")


@dataclass(frozen=True, slots=True)
class IQRThreshold:
    """`tau_l = max(floor, Q3 + k * max(min_iqr, Q3 - Q1))`, the adaptive rule of arXiv 2606.06188.

    The quartiles are those of single tokens, not of means over a batch: those would shrink with the batch.

    Attributes:
        k: How many interquartile ranges above the third quartile.
        min_iqr: Least interquartile range to reckon with.
        floor: Least threshold.

    Raises:
        OptionError: A value is not a number from 0 up.
    """

    k: float = 1.5
    min_iqr: float = 1e-3
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_fence(self)


@dataclass(frozen=True, slots=True)
class ReferenceThreshold:
    """The formula of `IQRThreshold` as the reference of arXiv 2606.06188 runs it: online, quartiles by P-square.

    It goes on from token to token, in `ReferenceEstimator`.

    Attributes:
        k: How many interquartile ranges above the third quartile.
        min_iqr: Least interquartile range to reckon with.
        floor: Least threshold.
        warm_up: Number of decode steps before there is a threshold.

    Raises:
        OptionError: A value is not a number from 0 up, or `warm_up` is not an integer.
    """

    k: float = 1.5
    min_iqr: float = 1e-3
    floor: float = 0.0
    warm_up: int = 500

    def __post_init__(self) -> None:
        _check_fence(self)
        if not isinstance(self.warm_up, int) or isinstance(self.warm_up, bool) or self.warm_up < 0:
            raise OptionError(_not_allowed("warm_up", self.warm_up, "an integer from 0 up"))


@dataclass(frozen=True, slots=True)
class RunningThreshold:
    """`tau_l = Q3 + k * (Q3 - Q1)` of a sequence's own norms so far, the rule of the text of arXiv 2606.06188.

    Each sequence and layer has its own, in `RunningTau`: no other request, no token of the prompt and no attention sink
    is in it, and neither is the token that is compared with it.

    Attributes:
        k: How many interquartile ranges above the third quartile.
        warm_up: Number of tokens of the answer before there is a threshold, at least 1.

    Raises:
        OptionError: `k` is not a number from 0 up, or `warm_up` is not an integer from 1 up.
    """

    k: float = 1.5
    warm_up: int = 16

    def __post_init__(self) -> None:
        _check("k", self.k, allowed="a number from 0 up")
        check_integer("warm_up", self.warm_up, low=1, allowed="an integer from 1 up")


ThresholdRule = FixedThreshold | QuantileThreshold | IQRThreshold | ReferenceThreshold | RunningThreshold
"""All rules."""

ThresholdOption = ThresholdRule | str | float | Mapping[int, float] | Mapping[str, Any]
"""What the option `threshold` takes."""

_RULES: Mapping[str, type[ThresholdRule]] = {
    "fixed": FixedThreshold,
    "quantile": QuantileThreshold,
    "iqr": IQRThreshold,
    "reference": ReferenceThreshold,
    "running": RunningThreshold,
}
_FORMS = (
    'a number, a number per layer such as `{21: 1300.0}`, `"iqr"`, `"quantile"`, `"running"`, `"reference"`, or a rule '
    'with its fields such as `{"rule": "quantile", "q": 0.95}`'
)


def threshold_rule(value: Any) -> ThresholdRule:
    """Return the rule that a user means.

    Args:
        value: A rule, a norm for all layers, a norm per layer index, the name of a rule, or a mapping with its name
            under `"rule"` and its fields.

    Raises:
        OptionError: It is none of these, or has an unknown name or field or a value that is not allowed.
    """
    if isinstance(value, ThresholdRule):
        return value
    if isinstance(value, str):
        return _named_rule(value, {})
    if isinstance(value, Mapping) and "rule" in value:
        return _named_rule(value["rule"], {name: field for name, field in value.items() if name != "rule"})
    if _is_number(value) or _is_per_layer(value):
        return FixedThreshold(value)
    raise OptionError(_not_allowed("threshold", value, _FORMS))


def _named_rule(name: Any, options: dict[Any, Any]) -> ThresholdRule:
    rule = _RULES.get(name) if isinstance(name, str) else None
    if rule is None:
        raise OptionError(_not_allowed("threshold", name, _FORMS) + closest(name, _RULES))
    allowed = {field.name: field for field in fields(rule)}
    for field in options:
        if field not in allowed:
            msg = f"The threshold rule `{name}` has no field `{field}`. Use {', '.join(f'`{key}`' for key in allowed)}."
            raise OptionError(msg + closest(field, allowed))
    missing = [key for key, field in allowed.items() if field.default is MISSING and key not in options]
    if missing:
        msg = f"The threshold rule `{name}` lacks `{missing[0]}`. Give it, or use {_FORMS}."
        raise OptionError(msg)
    return rule(**options)


def threshold_rule_to_dict(rule: ThresholdRule) -> dict[str, Any]:
    """Return a rule in plain JSON types, as `threshold_rule` takes it: its name under `"rule"`, and its fields."""
    name = next(name for name, kind in _RULES.items() if isinstance(rule, kind))
    options = {field.name: getattr(rule, field.name) for field in fields(rule)}
    if isinstance(rule, FixedThreshold) and isinstance(rule.values, Mapping):
        options["values"] = {str(layer): value for layer, value in rule.values.items()}
    return {"rule": name} | options


def needs_distribution(rule: ThresholdRule) -> bool:
    """Return whether the thresholds of a rule come from a profile or from what an engine has seen."""
    return isinstance(rule, QuantileThreshold | IQRThreshold)


def readable_rule(value: Any) -> ThresholdRule:
    """Return the rule that a user means, for messages and scores to read.

    Raises:
        OptionError: As `threshold_rule`; or it is the running one, which has one threshold per token.
    """
    rule = threshold_rule(value)
    if isinstance(rule, RunningThreshold):
        msg = (
            "The threshold rule `running` changes from token to token and can only be acted on, not read. Give it to "
            'an intervention, such as `recursion={"threshold": "running"}`; here use "iqr", a quantile, or numbers by '
            "layer."
        )
        raise OptionError(msg)
    return rule


def resolve_thresholds(
    rule: ThresholdRule, layers: Sequence[int], distribution: QuantileSketch | None
) -> tuple[float, ...] | None:
    """Return `tau_l` for each of the layers, in their order.

    Args:
        rule: Which norms are high.
        layers: 0-based indices of decoder layers.
        distribution: Of the norms of at least these layers, for the rules that need one.

    Returns:
        One number per layer; None while the rule has no norms to go by, and for the running rule, whose thresholds each
        sequence finds by itself.

    Raises:
        OptionError: A layer has no fixed threshold or is not in the distribution, or the rule is the reference's.
    """
    if isinstance(rule, FixedThreshold):
        return rule.of(layers)
    if isinstance(rule, ReferenceThreshold):
        msg = "`ReferenceThreshold` goes on from token to token. Use a `ReferenceEstimator` of it."
        raise OptionError(msg)
    if distribution is None or isinstance(rule, RunningThreshold):
        return None
    selected = distribution if tuple(layers) == distribution.layers else distribution.select(sorted(set(layers)))
    if selected.num_samples == 0:
        return None
    if isinstance(rule, QuantileThreshold):
        values = selected.quantile(rule.q).tolist()
    else:
        quartiles = zip(selected.quantile(0.25).tolist(), selected.quantile(0.75).tolist(), strict=True)
        values = [fence(rule, first, third) for first, third in quartiles]
    by_layer = dict(zip(selected.layers, values, strict=True))
    return tuple(by_layer[layer] for layer in layers)


def fence(rule: IQRThreshold | ReferenceThreshold, first: float, third: float) -> float:
    """Return `tau_l` of a layer with these quartiles."""
    return max(rule.floor, third + rule.k * max(rule.min_iqr, third - first))


def _check_fence(rule: IQRThreshold | ReferenceThreshold) -> None:
    for name in ("k", "min_iqr", "floor"):
        _check(name, getattr(rule, name), allowed="a number from 0 up")


def _check(name: str, value: Any, *, allowed: str, high: float = math.inf) -> None:
    check_number(name, value, low=0, high=high, allowed=allowed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_per_layer(value: Any) -> bool:
    """Return whether it is a mapping of layers, as integers or as JSON writes these."""
    is_filled = isinstance(value, Mapping) and len(value) > 0
    return is_filled and all(isinstance(key, int | str) and str(key).isascii() and str(key).isdigit() for key in value)


def _not_allowed(name: str, value: object, allowed: str) -> str:
    return f"`{name}={brief(value)}` is not allowed. Use {allowed}."

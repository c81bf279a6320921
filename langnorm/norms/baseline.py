"""What a call's norms are compared with, decided once before it starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, get_args

from langnorm.checks import brief, check_choice, check_number
from langnorm.errors import OptionError
from langnorm.norms.profile import NormProfile
from langnorm.norms.reference_estimator import ReferenceEstimator
from langnorm.norms.step_ranks import IntensityKind
from langnorm.norms.thresholds import (
    IQRThreshold,
    ReferenceThreshold,
    ThresholdRule,
    needs_distribution,
    resolve_thresholds,
)

if TYPE_CHECKING:
    from langnorm.norms.identity import ModelIdentity
    from langnorm.norms.online import OnlineSnapshot, OnlineStatistics
    from langnorm.norms.sketch import QuantileSketch
    from langnorm.norms.token_sums import TokenSums
    from langnorm.norms.token_table import TokenTable

AUTO = "auto"
"""The profile that came with the weights, or where there is none, what the engine has seen."""

ONLINE = "online"
"""What the norms are compared with where that is what the engine has seen, as messages call it."""

LOW_BELOW = 0.1
"""A step is low when its rank among the steps of its model is below this, unless the user says otherwise."""

ProfileOption = NormProfile | str | os.PathLike[str] | None
"""What the option `profile` takes: a profile, the path of one, `"auto"`, or None for none."""


class NormSource(Protocol):
    """A loaded model, as far as norms are concerned; every engine is one."""

    @property
    def identity(self) -> ModelIdentity:
        """What a profile of this model is tied to."""

    @property
    def profile(self) -> NormProfile | None:
        """The profile that came with the weights, if one did and it is of this model."""

    @property
    def statistics(self) -> OnlineStatistics:
        """The norms of all sequences so far."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the norms of some layers are compared with; fixed before a request starts, so neighbours cannot change it.

    Attributes:
        distribution: Of the norms of each recorded layer, from a profile or from what the engine saw; None while
            neither is there.
        source: Name of the profile, or `"online"`; None together with `distribution`.
        rule: Which norms are high.
        thresholds: `tau_l` of each recorded layer by the rule; None while it has nothing to go by, and for the paper's
            reference rule, whose thresholds change from token to token.
        estimator: The state from which the paper's reference rule goes on; None for the other rules.
        low_below: Rank among steps below which a step is low, 0 to 1.
        intensity: What intensities are measured by.
        tokens: The usual norms of token ids in the recorded layers, from the profile or, where intensities are
            measured by them, from what the engine saw; None while there are none.
        seen_tokens: Where no profile has them, what the engine saw, for scores to go on from.
        steps: Intensities of other steps of the model in the recorded layers, ascending; None while there are too few.

    Raises:
        OptionError: `low_below` is not between 0 and 1, or there is no such intensity.
    """

    distribution: QuantileSketch | None = None
    source: str | None = None
    rule: ThresholdRule = field(default_factory=IQRThreshold)
    thresholds: tuple[float, ...] | None = None
    estimator: ReferenceEstimator | None = None
    low_below: float = LOW_BELOW
    intensity: IntensityKind = "layer"
    tokens: TokenTable | None = None
    seen_tokens: TokenSums | None = None
    steps: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_low_below(self.low_below)
        check_intensity(self.intensity)


class NormSnapshot:
    """What is known of a model's norms at one moment. A call takes one, and everything in it reads from that one.

    Args:
        source: The model.
        profile: What to compare with, as the option `profile` takes it.

    Raises:
        OptionError: The profile cannot be read or is of another model.
    """

    def __init__(self, source: NormSource, profile: ProfileOption) -> None:
        self._profile = _resolve_profile(source, profile)
        self._online: OnlineSnapshot = source.statistics.snapshot()

    def distribution(self, layers: Sequence[int]) -> tuple[QuantileSketch | None, str | None]:
        """Return the distribution of the norms of some layers and its name; None and None while there is none.

        Raises:
            OptionError: The profile lacks a layer.
        """
        if self._profile:
            return self._profile.select(layers), self._profile.name
        online = self._online.select(layers)
        return online, None if online is None else ONLINE

    def thresholds(self, rule: ThresholdRule, layers: Sequence[int]) -> tuple[float, ...] | None:
        """Return `tau_l` of some layers by a rule other than the reference's, as `resolve_thresholds` does.

        Raises:
            OptionError: A layer has no fixed threshold, or the profile lacks it.
        """
        distribution = self.distribution(layers)[0] if needs_distribution(rule) else None
        return resolve_thresholds(rule, layers, distribution)

    def baseline(
        self, layers: Sequence[int], rule: ThresholdRule, low_below: float, intensity: IntensityKind = "layer"
    ) -> Baseline:
        """Return what the norms of some layers are compared with.

        Raises:
            OptionError: The profile lacks a layer, or what is usual there for tokens while intensities are measured by
                that, or a layer has no fixed threshold.
        """
        distribution, source = self.distribution(layers)
        estimator = self._online.estimator(rule, layers) if isinstance(rule, ReferenceThreshold) else None
        tokens = self._profile.select_tokens(layers) if self._profile else None
        seen = self._online.tokens(layers) if tokens is None else None
        if intensity == "token" and seen is not None:
            tokens = self._seen_table(seen)
        return Baseline(
            distribution,
            source,
            rule,
            thresholds=None if estimator else resolve_thresholds(rule, layers, distribution),
            estimator=estimator,
            low_below=low_below,
            intensity=intensity,
            tokens=tokens,
            seen_tokens=seen,
            steps=(self._profile or self._online).step_intensities(intensity, layers),
        )

    def _seen_table(self, seen: TokenSums) -> TokenTable | None:
        """Return what the engine saw as a table, or None before the warm-up is over.

        Raises:
            OptionError: There is a profile, and it does not know these layers' tokens.
        """
        from langnorm.norms.online import WARM_UP

        if self._profile:
            msg = (
                f'`intensity="token"` compares norms with the usual ones of the same token, and the profile '
                f"`{self._profile.name}` does not have those of the layers {', '.join(map(str, seen.layers))}. "
                "Calibrate it again with these `layers`, or use `profile=None` for what this process has seen, or "
                '`intensity="layer"`.'
            )
            raise OptionError(msg)
        return seen.table() if seen.num_tokens >= WARM_UP else None


def check_low_below(value: object) -> None:
    """Raise `OptionError` unless a value is something that the option `low_below` takes."""
    check_number("low_below", value, low=0, high=1, allowed="a number between 0 and 1; 0 calls no step low")


def check_intensity(value: object) -> None:
    """Raise `OptionError` unless a value is something that the option `intensity` takes."""
    check_choice("intensity", value, get_args(IntensityKind))


def check_profile(option: object) -> None:
    """Raise `OptionError` unless `option` is something that the option `profile` takes."""
    if option is not None and not isinstance(option, NormProfile | str | os.PathLike):
        msg = f'`profile={brief(option)}` is not allowed. Use a NormProfile, the path of one, "auto" or None.'
        raise OptionError(msg)


def _resolve_profile(source: NormSource, option: ProfileOption) -> NormProfile | None:
    if option == AUTO:
        return source.profile
    if option is None:
        return None
    profile = option if isinstance(option, NormProfile) else _load(Path(option))
    profile.check(source.identity)
    return profile


def _load(path: Path) -> NormProfile:
    try:
        modified = path.stat().st_mtime_ns
    except (OSError, ValueError):  # what is wrong with it is said by who reads it
        modified = 0
    return _load_version(path, modified)


@lru_cache(maxsize=8)
def _load_version(path: Path, modified: int) -> NormProfile:  # noqa: ARG001 (a file that changed is read again)
    return NormProfile.load(path)

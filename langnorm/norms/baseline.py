"""What a request's norms are compared with, decided before it starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from langnorm.errors import OptionError
from langnorm.norms.profile import NormProfile
from langnorm.norms.thresholds import IQRThreshold, ReferenceEstimator, ReferenceThreshold, ThresholdRule

if TYPE_CHECKING:
    from langnorm.engines.base import Engine
    from langnorm.norms.sketch import QuantileSketch

AUTO = "auto"
"""The profile that came with the weights, or where there is none, what the engine has seen."""

LOW_BELOW = 0.1
"""A step is low when its intensity is below this, unless the user says otherwise."""

ProfileOption = NormProfile | str | os.PathLike[str] | None
"""What the option `profile` takes: a profile, the path of one, `"auto"`, or None for none."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What norms are compared with. It is fixed before a request starts, so neighbours cannot change its result.

    Attributes:
        distribution: Of the norms of each recorded layer, from a profile or from what the engine saw; None while
            neither is there.
        source: Name of the profile, or `"online"`; None together with `distribution`.
        rule: Which norms are high.
        estimator: The state of `rule` where it is the paper's reference rule, which has one.
        low_below: Intensity below which a step is low, 0 to 1.

    Raises:
        OptionError: `low_below` is not between 0 and 1.
    """

    distribution: QuantileSketch | None = None
    source: str | None = None
    rule: ThresholdRule = field(default_factory=IQRThreshold)
    estimator: ReferenceEstimator | None = None
    low_below: float = LOW_BELOW

    def apart(self) -> Baseline:
        """Return a baseline that reads the same, and whose rule learns nothing for the others from what it reads."""
        return self if self.estimator is None else replace(self, estimator=self.estimator.copy())

    def __post_init__(self) -> None:
        is_number = isinstance(self.low_below, int | float) and not isinstance(self.low_below, bool)
        if not is_number or not 0 <= self.low_below <= 1:
            msg = f"`low_below={self.low_below!r}` is not allowed. Use a number between 0 and 1; 0 calls no step low."
            raise OptionError(msg)


def check_profile(option: object) -> None:
    """Raise `OptionError` unless `option` is something that the option `profile` takes."""
    if option is not None and not isinstance(option, NormProfile | str | os.PathLike):
        msg = f'`profile={option!r}` is not allowed. Use a NormProfile, the path of one, "auto" or None.'
        raise OptionError(msg)


def baseline_for(
    engine: Engine, layers: Sequence[int], *, profile: ProfileOption, rule: ThresholdRule, low_below: float
) -> Baseline:
    """Return the baseline of a request that starts now.

    Raises:
        OptionError: The profile is of another model, or lacks a layer.
    """
    distribution, source = distribution_for(engine, layers, profile)
    return Baseline(
        distribution=distribution,
        source=source,
        rule=rule,
        estimator=engine.statistics.estimator(rule, layers) if isinstance(rule, ReferenceThreshold) else None,
        low_below=low_below,
    )


def distribution_for(
    engine: Engine, layers: Sequence[int], profile: ProfileOption
) -> tuple[QuantileSketch | None, str | None]:
    """Return the distribution of the norms of some layers as of now, and its name; None and None while there is none.

    Raises:
        OptionError: The profile is of another model, or lacks a layer.
    """
    found = _profile_of(engine, profile)
    if found:
        return found.select(layers), found.name
    snapshot = engine.statistics.snapshot(layers)
    return snapshot, None if snapshot is None else "online"


def _profile_of(engine: Engine, option: ProfileOption) -> NormProfile | None:
    if option == AUTO:
        return engine.profile
    if option is None:
        return None
    profile = option if isinstance(option, NormProfile) else _load(Path(option))
    profile.check(engine)
    return profile


def _load(path: Path) -> NormProfile:
    return _load_version(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=8)
def _load_version(path: Path, modified: int) -> NormProfile:  # noqa: ARG001 (a file that changed is read again)
    return NormProfile.load(path)

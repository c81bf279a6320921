"""What a calibration has seen: how much it is worth, and what was left out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from langnorm.norms.thresholds import IQRThreshold, resolve_thresholds

if TYPE_CHECKING:
    from langnorm.norms.sketch import QuantileSketch
    from langnorm.norms.token_table import TokenTable

_STEADY = 0.01  # relative error of a threshold that is good enough: norms of one layer differ by several percent
_FEWEST_FOR_HALVES = 100  # tokens of a half, from which its threshold says something
_MANY = 0.25  # a share that is worth a warning
_RARE = 5e-4  # a layer whose norms are above its threshold less often hardly ever triggers anything


@dataclass(frozen=True, slots=True)
class Tally:
    """What a calibration has counted.

    Attributes:
        answers: Number of answers.
        cut_off: How many of them ended at the limit of tokens.
        looping: How many of them ran into a loop.
        loop_tokens: Tokens that were left out because they repeat what was said.
        sinks: Tokens that were left out as attention sinks.
    """

    answers: int = 0
    cut_off: int = 0
    looping: int = 0
    loop_tokens: int = 0
    sinks: int = 0


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What a calibration has seen.

    Attributes:
        tokens: Number of tokens in the profile.
        tally: What was counted on the way.
        max_tokens: Most tokens that an answer could have; None is as many as the context holds.
        ending: Why it ended, as a sentence.
        layers: The decoder layers, ascending.
        trigger_rates: Share of the norms of each layer above its IQR threshold.
        error: About how far thresholds are off for want of tokens, relative, mean over the layers: half of what
            separates those of one half of the answers from those of the other. None with too few tokens.
        explained: Share of the variance of the logarithms of norms that the token id explains, by layer of the table
            of tokens.
    """

    tokens: int
    tally: Tally
    max_tokens: int | None
    ending: str
    layers: tuple[int, ...]
    trigger_rates: tuple[float, ...]
    error: float | None
    explained: Mapping[int, float] = field(default_factory=dict)

    @property
    def enough_tokens(self) -> int | None:
        """About how many tokens give thresholds to within 1 %, as errors shrink with the root of their number."""
        return None if self.error is None else max(1, round(self.tokens * (self.error / _STEADY) ** 2))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the profile doubtful, a sentence each."""
        return tuple(self._warnings())

    def _warnings(self) -> Iterator[str]:
        tally = self.tally
        if tally.loop_tokens > _MANY * (self.tokens + tally.loop_tokens):
            yield "Much of what the model said were loops: set a temperature, or give prompts that it can answer."
        if tally.cut_off > _MANY * tally.answers:
            yield "Many answers were cut off: their ends are missing from the profile. Raise the limit of tokens."
        if self.error is not None and self.error > _STEADY:
            yield f"Thresholds are not steady yet: about {self.enough_tokens:,} tokens would give them to within 1 %."
        if rare := [str(layer) for layer, rate in zip(self.layers, self.trigger_rates, strict=True) if rate < _RARE]:
            yield (
                f"Hardly a norm is above the IQR threshold in layers {', '.join(rare)}: what waits for one there will "
                'hardly ever act. `threshold={"rule": "quantile", "q": 0.9}` is above one norm in ten.'
            )

    def lines(self) -> list[str]:
        """Return the report in words, warnings last."""
        tally = self.tally
        limit = "the end of the context" if self.max_tokens is None else f"{self.max_tokens:,} tokens"
        lines = [
            f"{self.tokens:,} tokens of {tally.answers:,} answers, {tally.cut_off:,} of them cut off at {limit}",
            f"Left out: {tally.loop_tokens:,} tokens of loops in {tally.looping:,} answers, and {tally.sinks:,} "
            "attention sinks.",
            self.ending,
        ]
        if self.trigger_rates:
            rates = zip(self.layers, self.trigger_rates, strict=True)
            lines.append(f"Above the IQR threshold: {', '.join(f'{rate:.2%} in layer {i}' for i, rate in rates)}.")
        if self.error is not None:
            lines.append(
                f"Thresholds are known to within about {self.error:.1%}. To within 1 % it takes about "
                f"{self.enough_tokens:,} tokens."
            )
        if self.explained:
            shares = ", ".join(f"{share:.0%} in layer {layer}" for layer, share in self.explained.items())
            lines.append(f"Which token it is explains of the variance of log norms: {shares}.")
        return [*lines, *(f"Warning: {warning}" for warning in self.warnings)]


def build_report(
    halves: tuple[QuantileSketch, QuantileSketch],
    tokens: TokenTable | None,
    tally: Tally,
    *,
    max_tokens: int | None,
    ending: str,
) -> CalibrationReport:
    """Return the report of a calibration.

    Args:
        halves: The distributions of the norms of every second answer, and of the others.
        tokens: The usual norms of token ids, or None.
        tally: What was counted on the way.
        max_tokens: Most tokens that an answer could have.
        ending: Why it ended, as a sentence.
    """
    whole = halves[0].copy()
    whole.merge(halves[1])
    of_whole, *of_halves = (resolve_thresholds(IQRThreshold(), whole.layers, each) for each in (whole, *halves))
    rates, error = np.zeros(0), None
    if of_whole is not None:
        rates = 1 - whole.percentile(np.array(of_whole))
        if None not in of_halves and min(half.num_samples for half in halves) >= _FEWEST_FOR_HALVES:
            first, second = (np.array(thresholds) for thresholds in of_halves)
            error = float(np.mean(np.abs(first - second) / (2 * np.array(of_whole))))
    return CalibrationReport(
        tokens=whole.num_samples,
        tally=tally,
        max_tokens=max_tokens,
        ending=ending,
        layers=whole.layers,
        trigger_rates=tuple(rates.tolist()),
        error=error,
        explained={} if tokens is None else dict(zip(tokens.layers, tokens.explained.tolist(), strict=True)),
    )

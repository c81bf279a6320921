"""Times kinds of doing the same work against each other, in one process and in turns.

On a machine that others use too, a time says little; the ratio of two runs that follow each other says more. So every
round runs each side once (A B C, A B C, ...), and what is reported is the median of the ratios within rounds.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

Work = Callable[[], float | None]
"""Does the work once. It may return the seconds until its first chunk."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One run, in seconds.

    Attributes:
        wall: Time that passed.
        cpu: Time that all threads of this process spent on processors.
        first_chunk: Time until the first chunk, of work that streams.
    """

    wall: float
    cpu: float
    first_chunk: float | None = None


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median and quartiles of the ratios within rounds."""

    median: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.lower:.3f} to {self.upper:.3f}]"


def measure(work: Work) -> Timing:
    """Return the time of one run. Garbage of earlier runs is collected before the clock starts."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    first_chunk = work()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu, first_chunk)


def take_turns(
    sides: Mapping[str, Work], repeats: int, *, warmups: int = 1, at_most: Mapping[str, int] | None = None
) -> dict[str, list[Timing]]:
    """Return the timings of each side, one per round; a side in `at_most` sits out the later rounds."""
    limits = at_most or {}
    for _ in range(warmups):
        for work in sides.values():
            work()
    timings: dict[str, list[Timing]] = {name: [] for name in sides}
    for number in range(repeats):
        for name, work in sides.items():
            if number < limits.get(name, repeats):
                timings[name].append(measure(work))
    return timings


def compare(timings: Sequence[Timing], baseline: Sequence[Timing], clock: str) -> Ratio:
    """Return how much longer `timings` took than `baseline` by `clock`, `"wall"` or `"cpu"`, round by round."""
    ratios = [getattr(a, clock) / getattr(b, clock) for a, b in zip(timings, baseline, strict=False)]
    if len(ratios) == 1:
        return Ratio(ratios[0], ratios[0], ratios[0])
    lower, _, upper = quantiles(ratios, n=4, method="inclusive")
    return Ratio(median(ratios), lower, upper)


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Return what a reader needs to judge the figures: processor, load, versions."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "num_cpus": os.cpu_count(),
        # Above about 0.2 something else was running, and the figures are noisy.
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in packages},
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document`, in one go: a run that is cut short leaves the rows it has finished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(document, indent=1, default=asdict) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

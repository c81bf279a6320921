"""Times kinds of doing the same work against each other, in one process and in turns.

On a machine that others use too, a time says little; the ratio of two runs that follow each other says more.
So every round runs each side once (A B C, C B A, ...), and the result is the median of the ratios within rounds.
`watched` tells whether two sides really did the same.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

Work = Callable[[], float | None]
"""Does the work once. It may return the seconds until its first chunk."""

_COLUMNS = (
    "row",
    "side",
    "rounds",
    "bar",
    "wall ratio [quartiles]",
    "CPU ratio [quartiles]",
    "base ms",
    "ms",
    "first chunk ms",
    "passes",
)


@dataclass(frozen=True, slots=True)
class Timing:
    """One run, in seconds.

    Attributes:
        wall: Time that passed.
        cpu: Time that all threads of this process spent on processors.
        num_passes: Number of forward passes of the model.
        first_chunk: Time until the first chunk, of work that streams.
    """

    wall: float
    cpu: float
    num_passes: int
    first_chunk: float | None = None


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median and quartiles of the ratios within rounds.

    Attributes:
        is_met: Whether the median meets the bar; None where there is no bar.
    """

    median: float
    lower: float
    upper: float
    is_met: bool | None = None

    def __str__(self) -> str:
        mark = "" if self.is_met is None else " pass" if self.is_met else " MISS"
        return f"{self.median:.3f} [{self.lower:.3f} to {self.upper:.3f}]{mark}"


@dataclass(slots=True)
class Generated:
    """What `model.generate` did: a list of new token ids per sequence, and the number of forward passes."""

    ids: list[list[int]] = field(default_factory=list)
    num_passes: int = 0

    def __str__(self) -> str:
        lengths = sorted({len(ids) for ids in self.ids})
        return f"{len(self.ids)} sequences of {lengths} tokens in {self.num_passes} forward passes"


@contextmanager
def counted_passes(model: Any) -> Iterator[Callable[[], int]]:
    """Count the forward passes inside the `with` block; what is bound returns how many there were so far."""
    num_passes = 0

    def count(*_: Any) -> None:
        nonlocal num_passes
        num_passes += 1

    hook = model.register_forward_hook(count)
    try:
        yield lambda: num_passes
    finally:
        hook.remove()


@contextmanager
def watched(model: Any) -> Iterator[Generated]:
    """Note what `model.generate` does inside the `with` block, whoever calls it."""
    done, kind = Generated(), type(model)
    generate = kind.generate
    returned: list[threading.Event] = []

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        returned.append(event := threading.Event())
        try:
            output = generate(self, *args, **kwargs)
            prompt = args[0] if args else kwargs["input_ids"]
            done.ids += output[:, prompt.size(1) :].tolist()
            return output
        finally:
            event.set()

    kind.generate = noted  # of the class: an engine runs a twin of the model
    try:
        with counted_passes(model) as num_passes:
            yield done
            for event in returned:
                event.wait()  # a stream's last chunk comes while `generate` still runs
            done.num_passes = num_passes()
    finally:
        del kind.generate  # so that of the base class is found again


def measure(model: Any, work: Work) -> Timing:
    """Return the time of one run. Garbage of earlier runs is collected before the clocks start."""
    gc.collect()
    with counted_passes(model) as num_passes:
        cpu, wall = time.process_time(), time.perf_counter()
        first_chunk = work()
        finish(model)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return Timing(wall, cpu, num_passes(), first_chunk)


def finish(model: Any) -> None:
    """Wait until the model's device has done all that it was given."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def consume(chunks: Iterable[Any]) -> float | None:
    """Read a stream to its end; return the seconds until the first chunk with text."""
    start, first = time.perf_counter(), None
    for chunk in chunks:
        if first is None and (chunk.content or chunk.additional_kwargs):
            first = time.perf_counter() - start
    return first


async def aconsume(chunks: AsyncIterator[Any]) -> float | None:
    """Do what `consume` does with an asynchronous stream."""
    start, first = time.perf_counter(), None
    async for chunk in chunks:
        if first is None and (chunk.content or chunk.additional_kwargs):
            first = time.perf_counter() - start
    return first


def take_turns(
    model: Any, sides: Mapping[str, Work], repeats: int, *, at_most: Mapping[str, int] | None = None
) -> dict[str, list[Timing]]:
    """Return the timings of each side, one per round, after a round to warm up.

    Every other round is in reverse order: a machine that gets slower, or faster, favours nobody. So an even number of
    rounds is best.

    Args:
        model: The model that all sides run.
        sides: What does the work, by name.
        repeats: Number of rounds.
        at_most: Fewer rounds for some sides, which then sit out the later ones.
    """
    limits = at_most or {}
    for work in sides.values():
        work()
    timings: dict[str, list[Timing]] = {name: [] for name in sides}
    for number in range(repeats):
        names = list(sides)
        for name in names if number % 2 == 0 else names[::-1]:
            if number < limits.get(name, repeats):
                timings[name].append(measure(model, sides[name]))
    return timings


def compare(timings: Sequence[Timing], base: Sequence[Timing], clock: str, bar: float | None = None) -> Ratio:
    """Return how much longer `timings` took than `base`, round by round, by `clock` (`"wall"` or `"cpu"`)."""
    ratios = [getattr(a, clock) / getattr(b, clock) for a, b in zip(timings, base, strict=False)]
    lower, _, upper = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Ratio(median(ratios), lower, upper, None if bar is None else median(ratios) <= bar)


def summarise(timings: Mapping[str, Sequence[Timing]], bars: Mapping[str, float]) -> dict[str, Any]:
    """Return what table and JSON say of a row: each side's ratios to the first one, and all timings.

    Args:
        timings: By side; all sides are compared with the first.
        bars: The highest ratio that meets the goal, for the sides that have one.
    """
    base, *others = timings
    sides = {}
    for name in others:
        bar = bars.get(name)
        chunks = [timing.first_chunk for timing in timings[name] if timing.first_chunk is not None]
        sides[name] = {
            "bar": bar,
            "wall": compare(timings[name], timings[base], "wall", bar),
            "cpu": compare(timings[name], timings[base], "cpu", bar),
            "num_passes": sorted({timing.num_passes for timing in timings[name]}),
            "median_seconds": median(timing.wall for timing in timings[name]),
            "first_chunk_seconds": median(chunks) if chunks else None,
        }
    seconds = median(timing.wall for timing in timings[base])
    num_passes = timings[base][0].num_passes
    return {
        "base": base,
        "base_median_seconds": seconds,
        "base_num_passes": num_passes,
        "sides": sides,
        "timings": timings,
    }


def print_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print summaries by row name; a side of which only an `error` is known gets that."""
    table = Table(*_COLUMNS, title=title)
    for row_name, row in rows.items():
        for name, side in row["sides"].items():
            if "error" in side:
                table.add_row(row_name, name, "", "", side["error"])
                continue
            bar = "" if side["bar"] is None else f"{side['bar']:.2f}"
            seconds = (row["base_median_seconds"], side["median_seconds"], side["first_chunk_seconds"])
            times = ["" if s is None else f"{1000 * s:,.0f}" for s in seconds]
            # Batches that fell apart need more passes than the base.
            passes = f"{' or '.join(map(str, side['num_passes']))} of {row['base_num_passes']}"
            rounds = str(len(row["timings"][name]))
            table.add_row(row_name, name, rounds, bar, str(side["wall"]), str(side["cpu"]), *times, passes)
    # Squeezed into the 80 columns of a log file, the table could not be read.
    Console(width=None if Console().is_terminal else 160).print(table, markup=False)


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Return what a reader needs to judge the figures: processors, load, versions."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "num_cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "environment": {name: value for name, value in os.environ.items() if name.startswith(("OMP_", "MKL_"))},
        "versions": {package: _version(package) for package in packages},
    }


def results_file(name: str, device: str) -> Path:
    """Return where a benchmark keeps what it measured on a device: those of a GPU never replace those of the CPU."""
    return Path(__file__).parent / "results" / (f"{name}.json" if device == "cpu" else f"{name}-{device}.json")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` in one go, so that a run that is cut short leaves the rows it had finished."""
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

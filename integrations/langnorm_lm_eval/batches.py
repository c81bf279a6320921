"""Requests in batches, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def run_by_length(
    lengths: Sequence[int],
    batch_size: int,
    run: Callable[[Sequence[int]], Iterator[Item]],
    *,
    title: str,
    is_quiet: bool,
) -> list[Item]:
    """Return the results of requests, which are run in batches, the longest first: what fails for memory fails at once.

    Args:
        lengths: Of the requests, in tokens.
        batch_size: Number of requests that are run together.
        run: Yields the results of the requests of some numbers.
        title: Of the progress bar.
        is_quiet: Whether there is none.
    """
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    results: dict[int, Item] = {}
    with tqdm(total=len(lengths), desc=title, disable=is_quiet) as bar:
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            for number, result in zip(numbers, run(numbers), strict=True):
                results[number] = result
                bar.update()
    return [results[number] for number in range(len(lengths))]

"""Accounts of CPU time: what is spent inside some functions, beside all that a run takes.

Two runs side by side differ by 10 % and more on a machine that others share, and bars are at 1 to 3 %. Both parts of
one run are slowed down alike, so their ratio is steady. It leaves out what one part does to the other, such as to
caches of the processor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

ALL = "all"
"""The account of everything."""

_spent: dict[str, float] = {}


def _cost_of_clock() -> float:
    """Return the seconds between two readings of the clock with nothing in between: it is a call of the system."""
    return statistics.median(-time.thread_time() + time.thread_time() for _ in range(1000))


_CLOCK = _cost_of_clock()


def account(owner: Any, name: str, account_name: str, *, returns_function: bool = False) -> None:
    """Add the CPU time of a function, or of the functions that it returns, to an account from now on.

    Args:
        owner: The class or module that has it.
        name: Of the function.
        account_name: Of the account. Functions of one account should not call each other: that time would count twice.
        returns_function: Whether what it returns is meant.
    """
    original = getattr(owner, name)

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                _spent[account_name] = _spent.get(account_name, 0.0) + time.thread_time() - start - _CLOCK

        return call

    if returns_function:
        setattr(owner, name, lambda *arguments, **named: timed(original(*arguments, **named)))
    else:
        setattr(owner, name, timed(original))


def measure_accounts(sides: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[dict[str, float]]]:
    """Return the seconds of each account in each run of each side, and under `ALL` those of the whole process.

    The sides take turns.

    Args:
        sides: What does the work, by name.
        repeats: How often each one does it, after once to warm up.
    """
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name, side in sides.items():
            _spent.clear()
            start = time.process_time()
            side()
            spent = time.process_time() - start
            if number:
                runs[name].append({ALL: spent, **_spent})
    return runs

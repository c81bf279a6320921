"""The outcomes of a causal check, on disk as soon as a condition is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from langnorm.errors import OptionError
from langnorm.files import write_atomically


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer.

    Attributes:
        is_right: Whether it is.
        is_cut: Whether `max_tokens` ended it.
        num_run: How many of its tokens were run.
        shrunk: By layer, the tokens whose states were shrunk.
        num_planned: How many states its mask named, or None without one.
        classes: The class of each token that was run, where a control needs it.
    """

    is_right: bool
    is_cut: bool
    num_run: int
    shrunk: Mapping[int, Sequence[int]] = field(default_factory=dict)
    num_planned: int | None = None
    classes: Sequence[str] = field(default_factory=list)

    @property
    def num_shrunk(self) -> int:
        """Number of states that were shrunk."""
        return sum(map(len, self.shrunk.values()))


class CausalStore:
    """What is done so far, in a file that is written anew after each condition.

    Args:
        path: The file, or None to keep nothing.
        about: What the outcomes depend on, in plain JSON types.

    Raises:
        OptionError: The file is of another check, or of none.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        self._path = path
        self._about = json.loads(json.dumps(about))
        self._done: dict[str, list[Outcome]] = {}
        self.taus: dict[int, list[float]] = {}
        if path and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            is_same = stored["about"] == self._about
            self.taus = {int(layer): values for layer, values in stored["thresholds"].items()}
            for name, outcomes in stored["done"].items():
                self._done[name] = [_read_outcome(outcome) for outcome in outcomes]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"`{path}` cannot be read as what a causal check has done ({error}). Delete it, or give another file."
            raise OptionError(msg) from error
        if not is_same:
            msg = f"`{path}` is of a check with other options, problems or model. Delete it, or give another file."
            raise OptionError(msg)

    def get(self, name: str) -> list[Outcome] | None:
        """Return the outcomes of a condition that is done, or None."""
        return self._done.get(name)

    def put(self, name: str, outcomes: list[Outcome], taus: Mapping[int, list[float]] | None = None) -> None:
        """Note what is done, and with the first of it the thresholds of each layer."""
        self._done[name] = outcomes
        self.taus = dict(taus or self.taus)
        if self._path:
            done = {name: [asdict(outcome) for outcome in outcomes] for name, outcomes in self._done.items()}
            write_atomically(self._path, json.dumps({"about": self._about, "thresholds": self.taus, "done": done}))


def _read_outcome(stored: Mapping[str, Any]) -> Outcome:
    shrunk = {int(layer): steps for layer, steps in stored["shrunk"].items()}
    return Outcome(**{**stored, "shrunk": shrunk})

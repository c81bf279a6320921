"""Writes the figures of a probe as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langnorm.evaluation.statistics import Interval
from langnorm.files import write_atomically


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Write figures as JSON: an interval as an object of its three numbers, and what is no finite number as null.

    Raises:
        OptionError: The file cannot be written.
    """
    write_atomically(path, json.dumps(_plain(figures), indent=1, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

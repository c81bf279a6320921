"""What decides the result of a long piece of work, in words: what was stopped goes on with nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any


def in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as texts by name, short enough to be shown."""
    return {name: value if isinstance(value, str) else repr(value) for name, value in settings.items()}


def digest_of(values: Sequence[Any]) -> str:
    """Return a short hash of values of plain types."""
    return hashlib.blake2b(repr(list(values)).encode(errors="backslashreplace"), digest_size=8).hexdigest()


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return what is not the same, in words.

    Args:
        there: Settings of the work that was begun.
        here: Those of the work that is to go on.
    """
    names = sorted({*there, *here}, key=[*here, *there].index)
    return [
        f"{name.replace('_', ' ')} `{there.get(name, 'none')}` there, `{here.get(name, 'none')}` here"
        for name in names
        if there.get(name) != here.get(name)
    ]

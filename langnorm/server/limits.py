"""What a request may ask for, beside what the model allows: no single one may take the server from the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langnorm.errors import OptionError
from langnorm.server.options import ServerOptions

_MOST: Mapping[str, Mapping[str, int]] = {
    "recursion": {"max_extra": 32, "num_loops": 32, "block": 32},
    "steering": {"bank_size": 1024},
}
"""Largest values of options that decide how long one forward pass takes: others of its batch wait for it."""

_MOST_STOP_TEXTS = 32


def limited(options: dict[str, Any], server: ServerOptions, default_max_tokens: int | None) -> dict[str, Any]:
    """Return the options of a call with the server's limits where it says nothing.

    Args:
        options: Of the call, as `check_options` returns them.
        server: The server's.
        default_max_tokens: The chat model's own `max_tokens`.

    Raises:
        OptionError: An option is above a limit.
    """
    _check("n", options.get("n"), server.max_samples)
    _check("selection.n", getattr(options.get("selection"), "n", None), server.max_samples)
    for name, most in _MOST.items():
        for field, limit in most.items():
            _check(f"{name}.{field}", getattr(options.get(name), field, None), limit)
    if isinstance(stop := options.get("stop"), tuple | list) and len(stop) > _MOST_STOP_TEXTS:
        msg = f"`stop` has {len(stop)} texts, and this server takes {_MOST_STOP_TEXTS}. Give fewer."
        raise OptionError(msg)
    limits = dict(options)
    _check("timeout", options.get("timeout"), server.timeout)
    if options.get("timeout") is None:
        limits["timeout"] = server.timeout
    if server.max_tokens is not None:
        _check("max_tokens", options.get("max_tokens"), server.max_tokens)
        if options.get("max_tokens") is None:
            limits["max_tokens"] = min(server.max_tokens, default_max_tokens or server.max_tokens)
    return limits


def _check(name: str, value: Any, limit: float) -> None:
    if isinstance(value, int | float) and value > limit:
        msg = f"`{name}={value}` is above what this server allows, which is {limit:g}. Ask for less."
        raise OptionError(msg)

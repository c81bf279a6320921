"""Keeps tokens and passwords that a user gives among other options out of whatever is shown, traced or logged.

They are wrapped in pydantic's `SecretStr`, which shows asterisks in `repr`, JSON and traces, and unwrapped where they
are needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import SecretStr

KEY_VARIABLE = "LANGNORM_API_KEY"
"""The environment variable that has the key to a server, so that no list of processes shows it."""

KEY_FORM = "letters and digits, at least one, and no space or end of a line around them"
"""What a key to a server may be, for errors: what a header of HTTP can carry, and a server gets as it was sent."""

_MASK = "**********"
_LEAST_LENGTH = 4  # of what is looked for in a text: shorter ones would be found in any

_NAMES = re.compile(
    r"(.*[_-])?(api[_-]?key|apikey|passwords?|passwd|passphrase|secrets?|authorization|auth|cookies?|credentials?|bearer)"
    r"|((.*[_-])?(access|api|auth|bearer|hf|hub|private|refresh|secret|security|session)[_-])?token"
    r"|(.*[_-])?secret[_-](access[_-])?key",
    re.IGNORECASE,
)
"""Names of options that hold a secret; not those of tokens of text, such as `pad_token`."""

_VALUES = re.compile(r"hf_\w{8,}|(Bearer|Basic)\s+\S+|[\w+.-]+://[^/\s@]+@.*", re.IGNORECASE | re.DOTALL)
"""What is a secret under any name: a token of the hub, a header that authorises, a URL with a password."""


def is_key(value: object) -> bool:
    """Return whether a value is of `KEY_FORM`."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip() != ""


def hide_credentials(value: Any) -> Any:
    """Return a copy of nested dicts, lists and tuples in which every secret text is a `SecretStr`."""
    return _hide(value, is_secret=False)


def _hide(value: Any, *, is_secret: bool) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _hide(item, is_secret=is_secret or _NAMES.fullmatch(str(name)) is not None)
            for name, item in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(_hide(item, is_secret=is_secret) for item in value)
    if isinstance(value, bytes) and is_secret:
        value = value.decode(errors="replace")
    if isinstance(value, str) and (is_secret or _VALUES.fullmatch(value)):
        return SecretStr(value)
    return value


def reveal_credentials(value: Any) -> Any:
    """Return a copy of nested dicts, lists and tuples in which every `SecretStr` is the text that it hides."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {name: reveal_credentials(item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(reveal_credentials(item) for item in value)
    return value


def mask_credentials(text: str, options: Any) -> str:
    """Return a text, such as an error's, in which the secrets among some options are asterisks."""
    # The longest first: one may be a part of another.
    for secret in sorted(_secrets(hide_credentials(options)), key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text


def _secrets(hidden: Any) -> Iterator[str]:
    if isinstance(hidden, SecretStr):
        secret = hidden.get_secret_value()
        if len(secret) >= _LEAST_LENGTH:
            yield secret
    elif isinstance(hidden, Mapping):
        for item in hidden.values():
            yield from _secrets(item)
    elif type(hidden) in (list, tuple):
        for item in hidden:
            yield from _secrets(item)

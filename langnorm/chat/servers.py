"""The address of a server that answers in place of an engine."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from langnorm.errors import OptionError

AUTO_MODEL = "auto"
"""In place of a model's name: the one that a server runs."""


def read_base_url(value: Any) -> str:
    """Return the address of a server with `/v1` at its end.

    Raises:
        OptionError: It is none.
    """
    mend = 'Use the address of a server, such as `base_url="http://127.0.0.1:8000/v1"`.'
    if value is None:
        msg = f'`engine="remote"` needs `base_url`. {mend}'
        raise OptionError(msg)
    try:
        url = urlsplit(value)
        is_one = url.scheme in ("http", "https") and bool(url.hostname) and not (url.query or url.fragment)
        is_one = is_one and url.port != 0 and value.isprintable() and not set(value) & set(" \\")
    except (ValueError, TypeError, AttributeError):
        is_one = False
    if not is_one:
        msg = f"`base_url` is not allowed. {mend}"
        raise OptionError(msg)
    if "@" in url.netloc:
        msg = "`base_url` has a name or a password in it, which errors would show. Give the key as `api_key`."
        raise OptionError(msg)
    text = str(value).rstrip("/")
    return text if text.endswith("/v1") else f"{text}/v1"

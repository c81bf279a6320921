"""The options of a server: frozen, checked when they are made."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from langnorm.checks import check_integer, check_number, refuse
from langnorm.credentials import KEY_FORM, is_key
from langnorm.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a chat model is served.

    Attributes:
        host: The address to listen at; by default this machine only.
        port: The port; 0 takes a free one.
        api_key: What clients must send as their key; None for no key.
        name: What the model is called; None for the name that it was loaded by.
        max_requests: Most requests at once; further ones are told to come again.
        max_samples: Most answers of a request, those of a selection among them.
        max_tokens: Most tokens of an answer; None for what the context holds.
        max_body_bytes: Largest body of a request.
        timeout: Most seconds that a request may take, and what one gets that asks for nothing else.
        grace: Seconds that running requests have to end when the server is stopped.

    Raises:
        OptionError: A value is not allowed.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    name: str | None = None
    max_requests: int = 128
    max_samples: int = 32
    max_tokens: int | None = None
    max_body_bytes: int = 8 * 2**20
    timeout: float = 600.0
    grace: float = 5.0

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not self.host:
            refuse("host", self.host, 'an address, such as "127.0.0.1"')
        check_integer("port", self.port, low=0, high=65535)
        if self.api_key is not None and not is_key(self.api_key):
            msg = f"`api_key` is not allowed. Use {KEY_FORM}; or None for no key."
            raise OptionError(msg)
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            refuse("name", self.name, "a text, or None")
        for name in ("max_requests", "max_samples", "max_body_bytes"):
            check_integer(name, getattr(self, name), low=1, allowed="1 or above")
        if self.max_tokens is not None:
            check_integer("max_tokens", self.max_tokens, low=1, allowed="1 or above, or None for no limit")
        check_number("timeout", self.timeout, low=0, high=4_000_000, is_low_open=True, allowed="seconds above 0")
        check_number("grace", self.grace, low=0, high=4_000_000, allowed="seconds from 0 up")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_local_name(self.host)


def is_local_name(host: str) -> bool:
    """Return whether a host, without brackets, is `localhost` or a loopback address, however that is written."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""What goes to a server and comes back, by HTTP: retries, time limits, and errors as langnorm's own."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import httpx
from pydantic_core import from_json
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from langnorm.credentials import KEY_FORM, KEY_VARIABLE, is_key
from langnorm.errors import OptionError, RemoteError
from langnorm.remote.events import EventReader
from langnorm.wire.errors import AGAIN, read_error

_CONNECT_SECONDS = 10.0
_MARGIN_SECONDS = 15.0  # that a server has to say by itself that a call took too long
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # seconds between attempts


@dataclass(frozen=True, slots=True)
class Address:
    """A server and the key to it.

    Attributes:
        base_url: As OpenAI's clients take it, with `/v1` at its end.
        api_key: The key, or None.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)

    def call(self, method: str, path: str, body: Any = None, *, timeout: float | None, max_retries: int) -> Any:
        """Return what the server answers, as JSON.

        Args:
            method: Of HTTP.
            path: Below `base_url`, or from the root of the server if it begins with a slash.
            body: What is sent as JSON.
            timeout: Seconds that the server has for it, or None.
            max_retries: How often it is tried again where that may help.

        Raises:
            OptionError: The key cannot be sent.
            RemoteError: The server cannot be reached, or breaks off or refuses for a reason of its own.
            LangNormError: What the server raised.
            TimeoutError: It took too long.
        """
        for attempt in Retrying(**_retries(max_retries)):
            with attempt, self._client(timeout) as client, self._telling():
                response = client.request(method, self._url(path), json=body, headers=self._headers())
                return self._read(response)
        raise AssertionError  # the last attempt raises

    async def acall(self, method: str, path: str, body: Any = None, *, timeout: float | None, max_retries: int) -> Any:
        """Return what `call` returns."""
        async for attempt in AsyncRetrying(**_retries(max_retries)):
            with attempt:
                async with self._async_client(timeout) as client:
                    with self._telling():
                        response = await client.request(method, self._url(path), json=body, headers=self._headers())
                        return self._read(response)
        raise AssertionError

    def stream(self, path: str, body: Any, *, timeout: float | None, max_retries: int) -> Generator[Any]:
        """Yield the events of a stream, which is tried again until it begins; closing the iterator ends it there too.

        Raises:
            RemoteError: See `call`; or the stream ends before its last event.
        """
        with self._client(timeout) as client:
            for attempt in Retrying(**_retries(max_retries)):
                with attempt, self._telling():
                    request = client.build_request("POST", self._url(path), json=body, headers=self._headers())
                    response = client.send(request, stream=True)
                    if response.is_error:
                        response.read()
                        self._read(response)
            reader = EventReader()
            with self._telling():
                try:
                    for data in response.iter_bytes():
                        yield from self._events(reader, data)
                finally:
                    response.close()
            self._check_ended(reader)

    async def astream(self, path: str, body: Any, *, timeout: float | None, max_retries: int) -> AsyncGenerator[Any]:
        """Yield what `stream` yields."""
        async with self._async_client(timeout) as client:
            async for attempt in AsyncRetrying(**_retries(max_retries)):
                with attempt, self._telling():
                    request = client.build_request("POST", self._url(path), json=body, headers=self._headers())
                    response = await client.send(request, stream=True)
                    if response.is_error:
                        await response.aread()
                        self._read(response)
            reader = EventReader()
            with self._telling():
                try:
                    async for data in response.aiter_bytes():
                        for event in self._events(reader, data):
                            yield event
                finally:
                    await response.aclose()
            self._check_ended(reader)

    def _client(self, timeout: float | None) -> httpx.Client:
        # One for each call: those that are kept have to be closed by somebody, and end with their event loop.
        return httpx.Client(timeout=_time_limits(timeout), verify=self._verify())

    def _async_client(self, timeout: float | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=_time_limits(timeout), verify=self._verify())

    def _verify(self) -> ssl.SSLContext | bool:
        # The scheme may be in capitals, too: only where there is no TLS is there nothing to verify.
        return False if self.base_url.lower().startswith("http://") else _ssl_context()

    def _url(self, path: str) -> str:
        return self.base_url.removesuffix("/v1") + path if path.startswith("/") else f"{self.base_url}/{path}"

    def _headers(self) -> dict[str, str]:
        key = self.api_key or os.environ.get(KEY_VARIABLE)
        if not key:
            return {}
        if not is_key(key):  # or else the error of HTTP's own would show it
            msg = f"The key, `api_key` or {KEY_VARIABLE}, is not allowed. Use {KEY_FORM}."
            raise OptionError(msg)
        return {"Authorization": f"Bearer {key}"}

    def _read(self, response: httpx.Response) -> Any:
        """Return what a response says as JSON, or raise the error that it is."""
        body: Any = response.text
        try:
            body = from_json(response.content)
        except ValueError:
            if not response.is_error:
                msg = f"{self.base_url} has answered with something else than JSON. Is it a server of a model?"
                raise RemoteError(msg, response.status_code) from None
        if response.is_error:
            raise self._error(body, response.status_code, response.headers)
        return body

    def _events(self, reader: EventReader, data: bytes) -> Iterator[Any]:
        try:
            events = reader.feed(data)
        except ValueError as error:
            msg = f"{self.base_url} has sent an event that is no JSON ({error}). Is it a server of a model?"
            raise RemoteError(msg) from error
        for event in events:
            if isinstance(event, Mapping) and event.get("error"):
                raise self._error(event, None, {})
            yield event

    def _check_ended(self, reader: EventReader) -> None:
        if not reader.is_ended:
            msg = f"{self.base_url} has broken off its answer. Ask again."
            raise RemoteError(msg)

    def _error(self, body: Any, status: int | None, headers: Mapping[str, str]) -> Exception:
        error = read_error(body, status, self.base_url)
        if isinstance(error, RemoteError) and status in AGAIN:
            seconds = headers.get("retry-after", "")
            error.retry_after = float(seconds) if seconds.isdigit() else _FIRST_WAIT
        return error

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn the errors of HTTP inside the `with` block into langnorm's."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            msg = (
                f"{self.base_url} cannot be reached ({str(error) or 'no answer'}). Start the server, such as by "
                "`langnorm serve`, or give another `base_url`."
            )
            raise RemoteError(msg, retry_after=_FIRST_WAIT) from error
        except httpx.TimeoutException as error:
            msg = f"{self.base_url} has not answered in time. Raise `timeout` or lower `max_tokens`."
            raise TimeoutError(msg) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            msg = f"{self.base_url} has broken off its answer ({error!r}). Ask again."
            raise RemoteError(msg) from error


def _time_limits(timeout: float | None) -> httpx.Timeout:
    return httpx.Timeout(None if timeout is None else timeout + _MARGIN_SECONDS, connect=_CONNECT_SECONDS)


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # which takes longer than the rest of a client


def _retries(max_retries: int) -> dict[str, Any]:
    """Return the arguments of tenacity: what may help to ask again is asked again, later and later."""

    def may_help(error: BaseException) -> bool:
        return isinstance(error, RemoteError) and error.retry_after is not None

    def seconds(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        told = getattr(error, "retry_after", None) or 0.0
        return min(max(told, _FIRST_WAIT * 2.0 ** (state.attempt_number - 1)), _LONGEST_WAIT)

    return {
        "stop": stop_after_attempt(max_retries + 1),
        "retry": retry_if_exception(may_help),
        "wait": seconds,
        "reraise": True,
    }

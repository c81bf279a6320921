"""vLLM's engine as langnorm asks it, in a process where vLLM's own server asks it too."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future, wait
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from langnorm.wire.errors import WireError

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.engine.protocol import EngineClient

T = TypeVar("T")

_SECONDS_OF_A_STEP = 0.02
"""Most that a step waits: a sequence that comes meanwhile is let in after it."""

_SECONDS_BETWEEN_LOOKS = 0.5
"""Between two looks at whether something is still to come, where it is waited for."""


class ClientEngine:
    """Does what `LLMEngine` does for `VllmCore`, by the client of a server, on whose event loop everything runs.

    Its methods are called by another thread than that of the loop.

    Args:
        client: The client.
        loop: The event loop of the server.
    """

    def __init__(self, client: EngineClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._loop = client, loop
        self._outputs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._running: dict[str, Future[None]] = {}
        self.engine_core = SimpleNamespace(shutdown=lambda: None)  # the server ends it

    @property
    def vllm_config(self) -> VllmConfig:
        """Of the engine."""
        return self._client.vllm_config

    def add_request(self, key: str, prompt: Mapping[str, Any], params: SamplingParams) -> None:
        """Let a sequence enter, whose outputs have its key."""
        self._running[key] = asyncio.run_coroutine_threadsafe(self._follow(key, prompt, params), self._loop)

    def abort_request(self, keys: Sequence[str]) -> None:
        """Give up sequences, as vLLM does with those whose generator is left."""
        for key in keys:
            if followed := self._running.pop(key, None):
                followed.cancel()

    def has_unfinished_requests(self) -> bool:
        """Return whether the end of a sequence has not been seen yet."""
        return bool(self._running)

    def step(self) -> list[Any]:
        """Wait for outputs, for a moment, and return them."""
        outputs = []
        try:
            outputs.append(self._outputs.get(timeout=_SECONDS_OF_A_STEP))
            while True:
                outputs.append(self._outputs.get_nowait())
        except queue.Empty:
            pass
        for output in outputs:
            if isinstance(output, BaseException):
                raise output
            if output.finished:
                self._running.pop(output.request_id, None)
        return outputs

    def reset_prefix_cache(self) -> None:
        """Forget the prompts and answers of earlier sequences."""
        self._wait(self._client.reset_prefix_cache())

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        """Return what all workers answer."""
        return self._wait(self._client.collective_rpc(method, args=args))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what comes of work on the loop.

        Raises:
            WireError: Nothing comes of it: the engine has ended, of which vLLM tells sequences alone, or the loop has.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # it is closed
            work.close()
            raise
        while not wait([future], timeout=_SECONDS_BETWEEN_LOOKS).done:
            if self._client.errored or not self._loop.is_running():
                raise _ended()
        try:
            return future.result()
        except EngineDeadError:
            raise _ended() from None

    async def _follow(self, key: str, prompt: Mapping[str, Any], params: SamplingParams) -> None:
        """Put the outputs of a sequence into the queue, and what vLLM refuses it with as its end."""
        from vllm.exceptions import GracefulHTTPError, VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            async for output in self._client.generate(prompt, params, key):
                self._outputs.put(output)
        except EngineDeadError:
            self._outputs.put(_ended())
        except GracefulHTTPError as error:  # it has as many as it is to have, and others may come in a moment
            again = WireError(error.message, status=int(error.http_status), code="too_many_requests", retry_after=1)
            self._outputs.put(_failed(key, again))
        except VLLMClientError as error:
            self._outputs.put(_failed(key, WireError(str(error))))
        except Exception as error:  # noqa: BLE001
            self._outputs.put(_failed(key, error))


def _ended() -> WireError:
    """Return what is raised where the engine is no more, or nobody to ask it: the server ends too, in a moment."""
    msg = "The engine of this server has ended, and the log says why. Ask again in a moment, or another one."
    return WireError(msg, status=503, code="engine_ended", retry_after=1)


def _failed(key: str, error: Exception) -> SimpleNamespace:
    """Return the output of a sequence that vLLM has given up, with the error in the place of a reason."""
    completion = SimpleNamespace(finish_reason="error", stop_reason=error, token_ids=(), logprobs=None)
    return SimpleNamespace(
        request_id=key, outputs=[completion], num_cached_tokens=0, prompt_logprobs=None, finished=True
    )

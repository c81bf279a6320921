"""vLLM's engine behind a client, as in its own server, with a script in the place of the client."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from langnorm.engines.vllm.core import VllmCore
from langnorm.engines.vllm.order import Order
from langnorm.wire.errors import WireError, error_status
from langnorm_vllm.client_engine import ClientEngine

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

DESCRIPTION = {"num_layers": 1, "knows_arguments": True}


class Client:
    """Refuses sequences, or answers them with nothing, as a busy engine does.

    Attributes:
        refusal: Raised of each sequence that comes.
        keys: Of these.
        is_silent: Whether nothing more is answered over RPC.
        errored: Whether the engine has ended.
    """

    vllm_config = SimpleNamespace(
        additional_config={"langnorm": {"in_process": False, "interventions": False}},
        model_config=SimpleNamespace(enforce_eager=True),
    )

    def __init__(self, refusal: Exception) -> None:
        self.refusal = refusal
        self.keys: list[str] = []
        self.is_silent = self.errored = False

    async def generate(self, _prompt: Any, _params: Any, key: str) -> AsyncGenerator[Any]:
        """Raise the refusal."""
        self.keys.append(key)
        raise self.refusal
        yield

    async def collective_rpc(self, _method: str, args: tuple[Any, ...]) -> list[Any]:  # noqa: ARG002
        """Return a description, if anything."""
        if self.is_silent:
            await asyncio.Event().wait()
        return [DESCRIPTION]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Returns an event loop that runs on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_sequence_that_is_refused_ends_with_the_reason(loop) -> None:
    """Of an engine that is busy it is one that clients know to ask again after."""
    from vllm.exceptions import QueueOverflowError, VLLMValidationError

    for refusal, kind, status in (
        (QueueOverflowError(), WireError, 503),
        (VLLMValidationError("no such thing"), WireError, 400),
        (ValueError("out of luck"), ValueError, 500),
    ):
        core = VllmCore(ClientEngine(Client(refusal), loop))
        core.add(Order(key="one", num_prompt_tokens=1), [5])
        while not (gained := core.step()):
            pass
        (error,) = [new.error for new in gained]
        assert (type(error), str(error), error_status(error)) == (kind, str(refusal), status)


def test_nothing_waits_for_an_engine_that_has_ended(loop) -> None:
    """What is asked over RPC is not answered any more: streams would never end, nor the server that waits for them."""
    client = Client(ValueError("refused"))
    core = VllmCore(ClientEngine(client, loop))
    client.is_silent = client.errored = True
    with pytest.raises(WireError, match="engine of this server has ended"):
        core.forget(["one"])


def test_an_engine_that_has_ended_is_no_fault_of_a_request(loop) -> None:
    """It is not refused for good, and nobody is told to load a model."""
    from vllm.v1.engine.exceptions import EngineDeadError

    core = VllmCore(ClientEngine(Client(EngineDeadError()), loop))
    core.add(Order(key="one", num_prompt_tokens=1), [5])
    time.sleep(0.1)
    with pytest.raises(WireError, match="Ask again in a moment") as raised:
        core.step()
    assert raised.value.status == 503


def test_processes_that_share_an_engine_try_it_out_side_by_side(loop) -> None:
    """Each by a sequence of its own name; that of a trial that is refused says why."""
    client = Client(ValueError("refused"))
    for _ in range(2):
        with pytest.raises(ValueError, match="refused"):
            VllmCore(ClientEngine(client, loop)).try_out([5, 6])
    assert len(set(client.keys)) == 2


def test_nothing_waits_for_a_server_that_has_ended(loop) -> None:
    """Its event loop stops with work in it, or is closed and takes none."""
    client = Client(ValueError("refused"))
    core = VllmCore(ClientEngine(client, loop))
    client.is_silent = True
    loop.call_soon_threadsafe(loop.call_later, 0.1, loop.stop)
    with pytest.raises(WireError, match="engine of this server has ended"):
        core.forget(["one"])
    while loop.is_running():
        time.sleep(0.01)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        core.forget(["one"])

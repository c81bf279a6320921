"""What the tests of the queue share."""

from __future__ import annotations

import pytest

from langnorm.engines.transformers import batching
from tests.support.batches import ENDLESS_SECONDS, Runner, has_worker
from tests.support.calls import wait_until


@pytest.fixture
def runner():
    """Returns a fresh runner and checks at the end that its thread is over."""
    runner = Runner()
    yield runner
    runner.may_go_on.set()
    wait_until(lambda: not has_worker())


@pytest.fixture
def patient(monkeypatch) -> None:
    """Lets the worker wait for ever for who is expected: those who come are joined, and a needless wait is a hang."""
    monkeypatch.setattr(batching, "_LINGER_SECONDS", ENDLESS_SECONDS)
    monkeypatch.setattr(batching, "_GATHERING_SECONDS", ENDLESS_SECONDS)

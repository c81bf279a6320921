"""Weights are loaded once, and a name that can be no model is refused at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from langnorm.engines import registry
from langnorm.engines.registry import get_engine


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """Returns the models that were loaded, in place of loading them."""
    loads: list[str] = []

    def load(model: str, _kwargs: dict) -> object:
        loads.append(model)
        time.sleep(0.05)
        return object()

    monkeypatch.setattr(registry, "_load", load)
    monkeypatch.setattr(registry, "_loaded", {})
    return loads


def test_concurrent_calls_load_a_model_once(loads) -> None:
    """Threads that ask for a model at the same time get one engine."""
    start = threading.Barrier(8)

    def get(_: int) -> object:
        start.wait(20)
        return get_engine("transformers", "model", {"dtype": "float32"})

    with ThreadPoolExecutor(8) as pool:
        engines = list(pool.map(get, range(8)))

    assert loads == ["model"]
    assert len(set(map(id, engines))) == 1


def test_models_do_not_wait_for_each_other(monkeypatch) -> None:
    """Different models, and one model with different arguments, are loaded at the same time."""
    meeting = threading.Barrier(3)
    monkeypatch.setattr(registry, "_load", lambda *_: meeting.wait(20))
    monkeypatch.setattr(registry, "_loaded", {})
    given = [("one", {}), ("two", {}), ("two", {"dtype": "bfloat16"})]

    with ThreadPoolExecutor(3) as pool:
        places = list(pool.map(lambda item: get_engine("transformers", *item), given))

    assert sorted(places) == [0, 1, 2]


def test_model_that_could_not_be_loaded_is_tried_again(loads, monkeypatch) -> None:
    """A failure is not remembered."""
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_load", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            get_engine("transformers", "model", {})

    assert get_engine("transformers", "model", {}) is get_engine("transformers", "model", {})
    assert loads == ["model"]

"""Models that go on for as long as a test lets them."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.interventions import NEVER


@pytest.fixture(scope="session")
def endless_engine_of(engine_of):
    """Return engines whose answers never end by themselves, like those of the oracle."""
    return partial(engine_of, eos_token_id=NEVER)


@pytest.fixture(scope="session")
def endless_model_of(model_of):
    """Return the models of these engines."""
    return partial(model_of, eos_token_id=NEVER)

"""What all tests share: no network, engines over tiny models, and the tokenizer of the bundled model."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
os.environ.setdefault("OMP_NUM_THREADS", "2")  # tiny models gain nothing from more
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine, threads that spin take what they wait for

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.engines.registry import BUNDLED_MODEL, get_engine
from langnorm.engines.transformers.engine import TransformersEngine
from tests.support.models import tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# A busy machine is not a failure.
settings.register_profile("langnorm", deadline=None)
settings.load_profile("langnorm")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """Abacus' tokenizer."""
    return AutoTokenizer.from_pretrained(langnorm.abacus.path())


@pytest.fixture(scope="session")
def model_of(tokenizer) -> Callable[..., PreTrainedModel]:
    """Returns the tiny model of a family, with the ids of Abacus' tokenizer; equal arguments give one object.

    Tuples stand for lists. Whoever changes a model builds its own, with a `seed` that no other test uses.
    """

    @cache
    def build(family: str, **fields: Any) -> PreTrainedModel:
        ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return tiny_model(family, **{"vocab_size": len(tokenizer), **ids, **fields})

    return build


@pytest.fixture(scope="session")
def engine_of(model_of, tokenizer) -> Callable[..., TransformersEngine]:
    """Returns an engine over the model that `model_of` returns for the same arguments."""

    @cache
    def build(family: str, **fields: Any) -> TransformersEngine:
        return TransformersEngine(model_of(family, **fields), tokenizer)

    return build


@pytest.fixture(scope="session")
def abacus_engine() -> TransformersEngine:
    """The engine of the bundled model. Its weights may change, so tests must not rely on what it says."""
    return get_engine("transformers", BUNDLED_MODEL, {})

"""What all tests share: no network, engines over tiny models, and the tokenizer of the bundled model."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
# Tiny models gain nothing from more threads; beside other workers not even from two.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine, threads that spin take what they wait for

import signal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from langnorm.engines.base import Engine
    from langnorm.engines.transformers.engine import TransformersEngine

TESTS = Path(__file__).parent
TIERS = ("unit", "tiny", "bundled", "standard", "real", "llamacpp", "vllm", "lm_eval", "browser")
"""The folders of tests; each is a marker of the same name."""
OUT_OF_TIER = {
    "unit": {"model_of", "engine_of", "abacus_engine"},
    "tiny": {"abacus_engine"},
    "browser": {"model_of", "engine_of", "abacus_engine"},
}
"""Fixtures that a tier goes without: `unit` loads no model, `tiny` not the bundled one."""

ENGINE = os.environ.get("LANGNORM_TEST_ENGINE", "transformers")
"""What runs the bundled model where tests ask for its engine."""

# A busy machine is not a failure.
settings.register_profile("langnorm", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)  # a fifth of the cases drawn, for `make quick`
settings.load_profile("langnorm")


# A shell starts what runs in the background with Ctrl-C ignored, and so would the processes be that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test with the tier whose folder it is in."""
    for item in items:
        tier = item.path.relative_to(TESTS).parts[0]
        if tier not in TIERS:
            msg = f"`{item.nodeid}` is in no tier. Move it into one of these folders of tests/: {', '.join(TIERS)}."
            raise pytest.UsageError(msg)
        item.add_marker(tier)
        if ENGINE != "transformers" and item.get_closest_marker("transformers_engine"):
            item.add_marker(pytest.mark.skip(reason=f"is about the engine of transformers, and this is {ENGINE}"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fails a test that asks for a model which its tier goes without."""
    tier = item.path.relative_to(TESTS).parts[0]
    if wrong := OUT_OF_TIER.get(tier, set()).intersection(getattr(item, "fixturenames", ())):
        fixtures = ", ".join(f"`{name}`" for name in sorted(wrong))
        first = next(name for name in TIERS if not wrong & OUT_OF_TIER.get(name, set()))
        pytest.fail(f"A test in tests/{tier} asks for {fixtures}. Move it to tests/{first}.", pytrace=False)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """Abacus' tokenizer."""
    from transformers import AutoTokenizer

    import langnorm.abacus

    return AutoTokenizer.from_pretrained(langnorm.abacus.path())


@pytest.fixture(scope="session")
def model_of(tokenizer) -> Callable[..., PreTrainedModel]:
    """Returns the tiny model of a family, with the ids of Abacus' tokenizer; equal arguments give one object.

    Tuples stand for lists. Whoever changes a model builds its own, with a `seed` that no other test uses.
    """
    from tests.support.models import tiny_model

    @cache
    def build(family: str, **fields: Any) -> PreTrainedModel:
        ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return tiny_model(family, **{"vocab_size": len(tokenizer), **ids, **fields})

    return build


@pytest.fixture(scope="session")
def engine_of(model_of, tokenizer) -> Callable[..., TransformersEngine]:
    """Returns an engine over the model that `model_of` returns for the same arguments."""
    from langnorm.engines.transformers.engine import TransformersEngine

    @cache
    def build(family: str, **fields: Any) -> TransformersEngine:
        return TransformersEngine(model_of(family, **fields), tokenizer)

    return build


@pytest.fixture(scope="session")
def abacus_engine(tmp_path_factory) -> Engine:
    """The engine of the bundled model. Its weights may change, so tests must not rely on what it says.

    With `LANGNORM_TEST_ENGINE=llamacpp` or `vllm` it is that of another engine over the same weights: what stands above
    an engine knows no difference.
    """
    from langnorm.engines.registry import BUNDLED_MODEL, get_engine
    from langnorm.norms.profile import NormProfile

    engine = get_engine("transformers", BUNDLED_MODEL, {})
    if ENGINE == "transformers":
        return engine
    if ENGINE == "vllm":
        options = {"max_model_len": 2048, "block_size": 32, "kv_cache_memory_bytes": 2**28}
        return get_engine("vllm", BUNDLED_MODEL, {}, {"in_process": True, "enforce_eager": True, **options})
    from tests.support.gguf_files import EXACT, write_gguf

    path = write_gguf(tmp_path_factory.mktemp("abacus") / "abacus.gguf", engine.model, engine.tokenizer)
    ours = get_engine("llamacpp", path, {}, EXACT)
    # Norms are the same, so the profile is right, but it is tied to another file.
    of = engine.profile
    ours._profile = NormProfile(of.name, ours.identity, of.sketch, of.tokens, of.steps)
    return ours

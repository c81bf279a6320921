"""Models in GGUF files, run by llama.cpp and by transformers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.gguf_files import EXACT, write_gguf

if TYPE_CHECKING:
    from langnorm.engines.llamacpp.engine import LlamaCppEngine


@pytest.fixture(autouse=True, scope="session")
def _llama_cpp() -> None:
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed here: `make test-llamacpp` builds it and runs these tests")


@pytest.fixture(autouse=True, scope="session")
def _kept_in(tmp_path_factory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANGNORM_CACHE", str(tmp_path_factory.mktemp("kept")))
        yield


@pytest.fixture(scope="session")
def abacus_file(tmp_path_factory, abacus_engine) -> Path:
    """Returns the bundled model as a GGUF file in float32."""
    path = tmp_path_factory.mktemp("abacus") / "abacus.gguf"
    return write_gguf(path, abacus_engine.model, abacus_engine.tokenizer)


@pytest.fixture(scope="session")
def abacus(abacus_file) -> LlamaCppEngine:
    """Returns the bundled model on llama.cpp."""
    from langnorm.engines.registry import get_engine

    return get_engine("llamacpp", abacus_file, {}, EXACT)


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory, model_of, tokenizer) -> Path:
    """Returns a tiny model with random weights as a GGUF file in float32."""
    return write_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", model_of("qwen2"), tokenizer)


@pytest.fixture(scope="session")
def tiny(tiny_file) -> LlamaCppEngine:
    """Returns the tiny model on llama.cpp."""
    from langnorm.engines.registry import get_engine

    return get_engine("llamacpp", tiny_file, {}, EXACT)

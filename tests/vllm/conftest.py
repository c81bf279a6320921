"""Models that vLLM runs in this process, and the same ones on transformers."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.interventions import NEVER
from tests.support.vllm_runner import let_triton_interpret

if TYPE_CHECKING:
    from collections.abc import Callable

    from langnorm.engines.base import Engine
    from langnorm.engines.vllm.engine import VllmEngine

HERE = Path(__file__).parent
SMALL = {
    "in_process": True,
    "enforce_eager": True,
    "max_model_len": 512,
    "num_gpu_blocks_override": 32,
    "max_num_batched_tokens": 48,
    "max_num_seqs": 16,
    "kv_cache_memory_bytes": 2**27,
}
"""A model that is called layer by layer, with prompts cut into chunks; blocks of keys and values have 128 tokens."""

ABACUS = {**SMALL, "max_model_len": 2048}
"""The bundled model likewise."""

SIZES = {"hidden_size": 128, "head_dim": 32, "eos_token_id": NEVER}
"""Heads have 16 values by default, which vLLM cannot do on a CPU; and the oracle knows no end."""


QUESTIONS = (
    "Mia has 12 boxes with 14 pens each. How many pens does she have?",
    "Calculate 47 + 385.",
    "What is the weather in Oslo?",
)


def chat_ids(engine: Engine, question: str) -> tuple[int, ...]:
    """Returns the prompt of a question."""
    turns = [{"role": "user", "content": question}]
    return tuple(engine.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))


def sizes_of(family: str) -> dict[str, Any]:
    """Returns the fields of the configuration of a family's tiny model."""
    return SIZES | ({"tie_word_embeddings": True} if family.startswith("gemma") else {})  # which vLLM takes for granted


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets vLLM, and what it imports, warn of what they like."""
    for item in items:
        if HERE in item.path.parents:
            for kind in ("FutureWarning", "DeprecationWarning", "UserWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))
            # Interpreted kernels are warmed up on whatever the memory holds, which may be no numbers.
            item.add_marker(pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning"))


@pytest.fixture(autouse=True, scope="session")
def _vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed here: `make test-vllm` does so in an environment of its own")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if os.environ.get("TRITON_INTERPRET"):
        let_triton_interpret()


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory, model_of, tokenizer) -> Callable[..., Path]:
    """Returns a folder with the tiny model of a family."""

    @cache
    def save(family: str, **fields: Any) -> Path:
        folder = tmp_path_factory.mktemp(family)
        model_of(family, **sizes_of(family), **fields).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def vllm_of(folder_of) -> Callable[..., VllmEngine]:
    """Returns the tiny model of a family on vLLM; what is named beside it goes to vLLM."""
    from langnorm.engines.registry import get_engine

    @cache
    def build(family: str, **engine_kwargs: Any) -> VllmEngine:
        return get_engine("vllm", folder_of(family), {}, {**SMALL, **engine_kwargs})

    return build


@pytest.fixture(scope="session")
def abacus() -> VllmEngine:
    """Returns the bundled model on vLLM."""
    from langnorm.engines.registry import get_engine

    return get_engine("vllm", "abacus", {}, ABACUS)

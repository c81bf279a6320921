"""LangChain's own integration tests, on a GGUF file of the bundled model that llama.cpp runs.

`LLAMACPP_MODEL=coder-0.5b pytest tests/llamacpp/test_standard.py` runs them on a real model of
`benchmarks/real_models.py`. What needs ability that a small model lacks fails there: CONTRIBUTING has the list.
"""

# ruff: noqa: D102 (what the properties mean is said in the suite)

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from benchmarks.real_models import fetch
from tests.support.standard import ReasonsAloud, SaysWhatItCan


class TestChatLangNormOnLlamaCpp(SaysWhatItCan, ReasonsAloud, ChatModelIntegrationTests):
    """What needs the weights."""

    file: Path

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.file, "engine": "llamacpp", "temperature": 0, "max_tokens": 300}

    @property
    def model_override_value(self) -> str:
        return str(self.file)


@pytest.fixture(scope="module", autouse=True)
def _take_file(abacus_file: Path) -> None:
    name = os.environ.get("LLAMACPP_MODEL")
    TestChatLangNormOnLlamaCpp.file = fetch(name) if name else abacus_file

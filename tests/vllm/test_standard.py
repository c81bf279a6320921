"""LangChain's own integration tests, on the bundled model that vLLM runs."""

# ruff: noqa: D102 (what the properties mean is said in the suite)

from __future__ import annotations

from typing import Any

from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.support.standard import ReasonsAloud, SaysWhatItCan
from tests.vllm.conftest import ABACUS


class TestChatLangNormOnVllm(SaysWhatItCan, ReasonsAloud, ChatModelIntegrationTests):
    """What needs the weights."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "abacus", "engine": "vllm", "engine_kwargs": ABACUS, "temperature": 0, "max_tokens": 300}

"""LangChain's own integration tests, on a GGUF file of the bundled model that llama.cpp runs.

`LLAMACPP_MODEL=coder-0.5b pytest tests/llamacpp/test_standard.py` runs them on a real model of
`benchmarks/real_models.py`. What needs ability that a small model lacks fails there: CONTRIBUTING has the list.
"""

# ruff: noqa: D102 (what the properties mean is said in the suite)

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests

from benchmarks.real_models import fetch
from langnorm import ChatLangNorm
from tests.support.standard import SaysWhatItCan

Detail = Literal["audio_input", "audio_output", "reasoning_output", "cache_read_input", "cache_creation_input"]


class TestChatLangNormOnLlamaCpp(SaysWhatItCan, ChatModelIntegrationTests):
    """What needs the weights."""

    file: Path

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.file, "engine": "llamacpp", "temperature": 0, "max_tokens": 300}

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return str(self.file)

    @property
    def supported_usage_metadata_details(self) -> dict[Literal["invoke", "stream"], list[Detail]]:
        return {"invoke": ["reasoning_output"], "stream": ["reasoning_output"]}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        chat = ChatLangNorm(**self.chat_model_params)
        question = "Calculate 47 + 385."
        if not stream:
            return chat.invoke(question)
        chunks = iter(chat.stream(question))
        whole = next(chunks)
        for chunk in chunks:
            whole = whole + chunk
        assert isinstance(whole, AIMessage)
        return whole


@pytest.fixture(scope="module", autouse=True)
def _take_file(abacus_file: Path) -> None:
    name = os.environ.get("LLAMACPP_MODEL")
    TestChatLangNormOnLlamaCpp.file = fetch(name) if name else abacus_file

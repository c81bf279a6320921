"""LangChain's own integration tests, on the bundled model."""

# ruff: noqa: D102 (what the properties mean is said in the suite)

from __future__ import annotations

from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langnorm import ChatLangNorm
from tests.support.standard import SaysWhatItCan

Detail = Literal["audio_input", "audio_output", "reasoning_output", "cache_read_input", "cache_creation_input"]


class TestChatLangNorm(SaysWhatItCan, ChatModelIntegrationTests):
    """What needs the weights."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 300}

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "abacus"

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


@pytest.fixture(scope="session", autouse=True)
def abacus(abacus_engine: Any) -> None:
    """Load the model before the first test: none of them is about that."""

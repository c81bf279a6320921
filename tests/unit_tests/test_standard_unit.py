"""LangChain's own unit tests."""

# ruff: noqa: D102 (what the properties mean is said in the suite)

from __future__ import annotations

from typing import Any

from langchain_tests.unit_tests import ChatModelUnitTests

from langnorm import ChatLangNorm


class TestChatLangNorm(ChatModelUnitTests):
    """What needs no weights."""

    @property
    def chat_model_class(self) -> type[ChatLangNorm]:
        return ChatLangNorm

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

"""LangChain's own unit tests."""

# ruff: noqa: D102 (what the properties mean is said in the suite)

from __future__ import annotations

from typing import Any

from langchain_tests.unit_tests import ChatModelUnitTests

from tests.support.standard import SaysWhatItCan


class TestChatLangNorm(SaysWhatItCan, ChatModelUnitTests):
    """What needs no weights."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0}

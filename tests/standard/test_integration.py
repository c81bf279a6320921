"""LangChain's own integration tests, on the bundled model."""

# ruff: noqa: D102 (what the properties mean is said in the suite)

from __future__ import annotations

from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.support.standard import ReasonsAloud, SaysWhatItCan


class TestChatLangNorm(SaysWhatItCan, ReasonsAloud, ChatModelIntegrationTests):
    """What needs the weights."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 300}

    @property
    def model_override_value(self) -> str:
        return "abacus"


@pytest.fixture(scope="session", autouse=True)
def abacus(abacus_engine: Any) -> None:
    """Load the model before the first test: none of them is about that."""

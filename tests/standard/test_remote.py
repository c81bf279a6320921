"""LangChain's own integration tests, on a chat model whose calls a real server of the bundled model answers."""

# ruff: noqa: D102 (what the properties mean is said in the suite)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langnorm import ChatLangNorm
from tests.support.servers import LOOPBACK, running_server
from tests.support.standard import ReasonsAloud, SaysWhatItCan

pytestmark = LOOPBACK


class TestRemote(SaysWhatItCan, ReasonsAloud, ChatModelIntegrationTests):
    """What needs the weights, which are the server's."""

    url = ""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"engine": "remote", "base_url": self.url, "temperature": 0, "max_tokens": 300}

    @property
    def model_override_value(self) -> str:
        return "abacus"


@pytest.fixture(scope="module", autouse=True)
def server(abacus_engine: Any) -> Iterator[None]:
    """The server."""
    with running_server(ChatLangNorm(engine=abacus_engine, model="abacus")) as url:
        TestRemote.url = url
        yield

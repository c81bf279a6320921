"""What the middleware asks for, without a model that answers."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.language_models import FakeListChatModel

from langnorm import ChatLangNorm
from langnorm.middleware import NormRetryMiddleware
from langnorm.testing import ScriptedEngine, message_with_norms


@pytest.mark.parametrize(
    ("other", "settings"),
    [
        (FakeListChatModel(responses=["x"]), {"stop": ["."], "temperature": 0.5}),
        (ChatLangNorm(engine=ScriptedEngine("x")), {"stop": ["."], "temperature": 0.5, "top_k": 3, "seed": 8}),
    ],
)
def test_another_model_has_the_settings_that_were_bound(other, settings) -> None:
    """As with `NormRetry`, those of the request first; tools are the request's own, which the agent binds."""
    asked: list[ModelRequest[Any]] = []

    def handler(request: ModelRequest[Any]) -> ModelResponse[Any]:
        asked.append(request)
        return ModelResponse(result=[message_with_norms(["One."], intensities=0.0)])

    model: Any = ChatLangNorm(engine=ScriptedEngine("x")).bind(
        stop=["."], temperature=1, top_k=3, seed=7, tools=[], tool_choice="none"
    )
    request = ModelRequest(model=model, messages=[], model_settings={"temperature": 0.5}, state={"messages": []})
    NormRetryMiddleware(max_retries=1, escalation=other).wrap_model_call(request, handler)
    assert [each.model_settings for each in asked] == [{"temperature": 0.5}, settings]

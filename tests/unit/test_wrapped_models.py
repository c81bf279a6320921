"""What LangChain wraps around a chat model is looked through, and nothing that was bound is lost."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel

from langnorm import ChatLangNorm, NormRetry, NormSelector
from langnorm.retry.escalation import resolve_change
from langnorm.testing import ScriptedEngine
from langnorm.wrapped_models import change_models, is_langnorm, may_be_langnorm, unwrap_model, with_tools


class Sum(BaseModel):
    """A sum."""

    total: int


@pytest.fixture(scope="module")
def chat() -> ChatLangNorm:
    """Abacus."""
    return ChatLangNorm(max_tokens=60)


def test_the_model_is_found_inside_its_wrappers(chat) -> None:
    """Bindings, fallbacks, configurable fields and selectors hide it not."""
    configurable = chat.configurable_fields(max_tokens=ConfigurableField(id="length"))
    for llm in (
        chat.bind(seed=1),
        chat.with_fallbacks([chat]),
        configurable,
        NormSelector(chat, n=2),
        chat.with_retry(),
    ):
        assert unwrap_model(llm)[0] is chat
        assert is_langnorm(llm)
        assert may_be_langnorm(llm)
    assert unwrap_model(chat.bind(seed=1).bind(stop=["x"]))[1] == {"seed": 1, "stop": ["x"]}
    other = FakeListChatModel(responses=[])
    assert not is_langnorm(other)
    assert [may_be_langnorm(llm) for llm in (other, other.with_fallbacks([chat.bind(seed=1)]))] == [False, True]


def test_each_model_inside_of_wrappers_is_changed(chat) -> None:
    """Those of bindings, fallbacks and alternatives, also such as are made when they are asked for; settings stay."""

    def tagged(llm: Any) -> Any:
        return llm.model_copy(update={"tags": ["x"]})

    field, other = ConfigurableField(id="which"), FakeListChatModel(responses=["a"])
    for llm in (
        chat,
        chat.bind(seed=1).with_fallbacks([other.bind(stop=["y"])]),
        chat.configurable_fields(max_tokens=ConfigurableField(id="length")),
        chat.configurable_alternatives(field, other=other, late=lambda: other),
    ):
        changed = change_models(llm, tagged)
        assert unwrap_model(changed)[0].tags == ["x"]
        assert unwrap_model(changed)[1] == unwrap_model(llm)[1]
        assert type(changed) is type(llm)
        assert unwrap_model(llm)[0].tags is None
    fallback = change_models(chat.with_fallbacks([other.bind(stop=["y"])]), tagged).fallbacks[0]
    assert (fallback.bound.tags, fallback.kwargs) == (["x"], {"stop": ["y"]})
    alternatives = change_models(chat.configurable_alternatives(field, other=other, late=lambda: other), tagged)
    for name in ("other", "late"):
        assert alternatives.prepare({"configurable": {"which": name}})[0].tags == ["x"]


def test_a_class_of_the_users_own_is_one_of_ours() -> None:
    """Whatever it calls its kind in logs."""

    class Own(ChatLangNorm):
        """A chat model of the user's own."""

        @property
        def _llm_type(self) -> str:
            return "own"

    own = Own(engine=ScriptedEngine(["x"]), temperature=0)
    assert is_langnorm(own.bind(seed=1))
    assert NormSelector(own, n=2).selection.n == 2
    assert resolve_change([{}], 1, own, {}).settings["temperature"] > 0  # a retry repeats no greedy answer


def test_tools_are_added_to_what_was_bound(chat) -> None:
    """Settings and tags of bindings stay, whoever binds the tools; tools that were bound before give way."""
    bound = chat.bind_tools([Sum], tool_choice="any").bind(seed=1).with_config(tags=["mine"])
    for found in (
        with_tools(bound, [Sum], {}),
        NormSelector(bound, n=2).bind_tools([Sum]).bound,
        NormRetry(bound).bind_tools([Sum]).llm,
    ):
        settings = unwrap_model(found)[1]
        assert settings["seed"] == 1
        assert len(settings["tools"]) == 1
        assert "tool_choice" not in settings
        assert found.config["tags"] == ["mine"]


def test_a_schema_is_added_to_what_was_bound(chat) -> None:
    """A selector over a model with settings selects among answers that have them."""
    chain = NormSelector(chat.bind(seed=1, temperature=0.9), n=2).with_structured_output(Sum)
    assert unwrap_model(chain.first)[1]["seed"] == 1
    assert unwrap_model(chain.first)[1]["selection"].n == 2


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_schema_takes_the_place_of_tools(chat, method) -> None:
    """As it does where they are bound to the model itself."""
    bound = chat.bind_tools([Sum], tool_choice="any").bind(response_format={"type": "json_object"}, seed=1)
    settings = unwrap_model(NormSelector(bound, n=2).with_structured_output(Sum, method=method).first)[1]
    direct = unwrap_model(chat.with_structured_output(Sum, method=method, seed=1).first)[1]
    assert {name: value for name, value in settings.items() if name != "selection"} == direct

"""Finds the chat model inside of what LangChain wraps around it: bindings, fallbacks, configurable fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.configurable import DynamicRunnable, RunnableConfigurableAlternatives

from langnorm.chat.fields import ChatFields


def unwrap_model(llm: Any) -> tuple[Any, dict[str, Any]]:
    """Return the chat model inside of bindings, fallbacks and configurable fields, and the settings bound to it.

    Of fallbacks it is the first model, of configurable fields or alternatives the default. Of settings that are bound
    twice, the outer one counts. Anything else than these wrappers is returned as it is.
    """
    settings: dict[str, Any] = {}
    while True:
        if isinstance(llm, RunnableBindingBase):
            llm, settings = llm.bound, {**llm.kwargs, **settings}
        elif isinstance(llm, DynamicRunnable):
            llm = llm.default
        elif isinstance(llm, RunnableWithFallbacks):
            llm = llm.runnable
        else:
            return llm, settings


def change_models(llm: Any, change: Callable[[Any], Any]) -> Any:
    """Return a model with what `change` returns in place of each chat model inside of bindings and other wrappers.

    Of fallbacks and alternatives that is each of them.
    """
    if isinstance(llm, RunnableBindingBase):
        return llm.model_copy(update={"bound": change_models(llm.bound, change)})
    if isinstance(llm, RunnableWithFallbacks):
        others = [change_models(other, change) for other in llm.fallbacks]
        return llm.model_copy(update={"runnable": change_models(llm.runnable, change), "fallbacks": others})
    if isinstance(llm, RunnableConfigurableAlternatives):
        alternatives = {name: _changed_alternative(other, change) for name, other in llm.alternatives.items()}
        return llm.model_copy(update={"default": change_models(llm.default, change), "alternatives": alternatives})
    if isinstance(llm, DynamicRunnable):
        return llm.model_copy(update={"default": change_models(llm.default, change)})
    return change(llm)


def _changed_alternative(other: Any, change: Callable[[Any], Any]) -> Any:
    """Return an alternative, changed; some are functions that make it when it is asked for."""
    return change_models(other, change) if isinstance(other, Runnable) else lambda: change_models(other(), change)


def is_langnorm(llm: Any) -> bool:
    """Return whether the chat model inside is a ChatLangNorm, whose messages carry norms."""
    return isinstance(unwrap_model(llm)[0], ChatFields)


def may_be_langnorm(llm: Any) -> bool:
    """Return whether a ChatLangNorm answers in some case, be it as a fallback or an alternative."""
    found: list[bool] = []

    def looked_at(model: Any) -> Any:
        found.append(is_langnorm(model))
        return model

    change_models(llm, looked_at)
    return any(found)


def is_only_langnorm(llm: Any) -> bool:
    """Return whether a ChatLangNorm answers in any case: fallbacks and alternatives may be models of other packages."""
    while isinstance(llm, RunnableBindingBase):
        llm = llm.bound
    return isinstance(llm, BaseChatModel) and is_langnorm(llm)


def unwrap_bindings(llm: Any) -> tuple[Any, dict[str, Any], RunnableConfig | None]:
    """Return what is inside of bindings alone, and the settings and the configuration that are bound to it.

    A binding hands methods such as `bind_tools` on to what it binds, and would lose its own settings. Wrappers of other
    kinds stay: fallbacks bind tools to each of their models themselves.
    """
    settings: dict[str, Any] = {}
    config: RunnableConfig | None = None
    while isinstance(llm, RunnableBinding):
        settings, config = {**llm.kwargs, **settings}, merge_configs(llm.config, config)
        llm = llm.bound
    return llm, settings, config


def with_tools(llm: Any, tools: Sequence[Any], options: dict[str, Any]) -> Any:
    """Return a model with tools bound, and with the settings that were bound to it before.

    Args:
        llm: The model, with what it may be wrapped in.
        tools: As the model's `bind_tools` takes them. They take the place of those that were bound before.
        options: Further arguments of `bind_tools`.
    """
    inner, settings, config = unwrap_bindings(llm)
    settings = {name: value for name, value in settings.items() if name not in ("tools", "tool_choice")}
    model = inner.bind_tools(tools, **(settings | options))
    return model.with_config(config) if config else model

"""NormRetry: asks again when too many steps of an answer are low."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence, RunnableSerializable
from langchain_core.runnables.config import get_config_list, patch_config
from pydantic import ConfigDict, SkipValidation
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_result, stop_after_attempt, stop_any, wait_none

from langnorm.chat.batches import most_together
from langnorm.checks import brief, refuse
from langnorm.errors import OptionError
from langnorm.retry.attempts import Attempts
from langnorm.retry.escalation import (
    DEFAULT_ESCALATION,
    NO_CHANGE,
    EscalationOption,
    EscalationStep,
    RetryChange,
    resolve_change,
    settings_for,
    settings_for_refining,
)
from langnorm.retry.policy import MAX_LOW_SHARE, OnExhausted, RetryPolicy
from langnorm.wrapped_models import is_langnorm, unwrap_model, with_tools

StopCondition = Callable[[RetryCallState], bool]
"""A stop condition of tenacity, such as `stop_after_delay(60)`."""

WaitStrategy = Callable[[RetryCallState], float]
"""A wait strategy of tenacity, such as `wait_fixed(1)`; returns seconds."""

_HIDDEN = "nostream"  # langgraph's messages mode shows nothing of runs with this tag
_MOST_CALLS_AT_ONCE = 16  # for models that do not say how many they run together


class NormRetry(RunnableSerializable[LanguageModelInput, AIMessage]):
    """Asks a chat model again when too many steps of its answer are low, and keeps the best answer.

    The kept message is one of the attempts as it is, usage included. Its `response_metadata["langnorm"]` also has
    `weak`, whether it is weak itself (None while intensity is unknown), and `attempts`: for each one `low_share`,
    `intensity`, `finish_reason`, `tokens`, `settings` (what was changed for it), `kept`, and `error` where it raised.

    Answers without norms, as other models give them, and answers whose intensity is unknown are never retried. An
    exception of the first attempt is raised; of a retry it is recorded, and the best answer so far is kept.

    Args:
        llm: A `ChatLangNorm`, also with tools or settings bound, or another Runnable that answers with its messages.
        max_low_share: Share of low steps, 0 to 1, above which an answer is weak.
        max_attempts: Most attempts, the first one included.
        escalation: What the retries change, in their order; the last step serves all further ones. A step is
            `"resample"`, `"refine"`, `"recursion"`, `"steering"`, a dict of settings of a call such as
            `{"max_tokens": 2048}`, or another chat model, which is called instead. Every retry has a seed of its own,
            and one that would repeat a greedy answer is sampled at a temperature of 0.7. `"refine"` keeps the steps of
            the best answer before its first low one and goes on from there. It needs a `ChatLangNorm`, without a
            schema, a forced call, a selection, an intervention, a `lens` or `distribution=True`.
        stop: A stop condition of tenacity, such as `stop_after_delay(60)`, in addition to `max_attempts`.
        wait: A wait strategy of tenacity for the time between attempts; none by default.
        on_exhausted: When all attempts are weak, `"best"` keeps the best, `"last"` the last; `"raise"` raises.
        retry_tool_calls: Whether weak answers that call tools are retried too.
        name: Of the run in traces.

    Raises:
        OptionError: A value is not allowed.

    Example:
        .. code-block:: python

            from langnorm import ChatLangNorm, NormRetry

            careful = NormRetry(ChatLangNorm(), max_low_share=0.2)
            reply = careful.invoke("Calculate 47 + 385.")
            reply.response_metadata["langnorm"]["attempts"]
    """

    llm: Runnable[LanguageModelInput, Any]
    """The model that is asked, with what it may be wrapped in."""

    max_low_share: float = MAX_LOW_SHARE
    """Share of low steps, 0 to 1, above which an answer is weak."""

    max_attempts: int = 3
    """Most attempts, the first one included."""

    escalation: SkipValidation[tuple[EscalationStep, ...]]  # pydantic would take settings for the fields of a model
    """What the retries change, in their order: settings of the call, or another model; the last serves all further."""

    stop: StopCondition | None = None
    """Ends the attempts, in addition to `max_attempts`; a condition of tenacity."""

    wait: WaitStrategy | None = None
    """Seconds between attempts, by a strategy of tenacity; None for no wait."""

    on_exhausted: OnExhausted = "best"
    """Which attempt is kept when all are weak, or `"raise"`."""

    retry_tool_calls: bool = False
    """Whether weak answers that call tools are retried too."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    def __init__(
        self,
        llm: Runnable[LanguageModelInput, Any],
        *,
        max_low_share: float = MAX_LOW_SHARE,
        max_attempts: int = 3,
        escalation: EscalationOption = DEFAULT_ESCALATION,
        stop: StopCondition | None = None,
        wait: WaitStrategy | None = None,
        on_exhausted: OnExhausted = "best",
        retry_tool_calls: bool = False,
        name: str | None = None,
    ) -> None:
        _check_model(llm)
        policy = RetryPolicy(
            max_low_share=max_low_share,
            max_attempts=max_attempts,
            escalation=escalation,
            on_exhausted=on_exhausted,
            retry_tool_calls=retry_tool_calls,
        )
        _check_strategy("stop", stop)
        _check_strategy("wait", wait)
        super().__init__(
            llm=llm,
            max_low_share=max_low_share,
            max_attempts=max_attempts,
            escalation=policy.steps,
            stop=stop,
            wait=wait,
            on_exhausted=on_exhausted,
            retry_tool_calls=retry_tool_calls,
            name=name,
        )  # type: ignore[call-arg]

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:  # noqa: A002
        """Return the kept answer; settings of the call go to every attempt.

        Raises:
            WeakReasoningError: All attempts were weak and `on_exhausted` is `"raise"`.
        """
        return self._call_with_config(self._invoke, input, config, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Return the kept answer; settings of the call go to every attempt.

        Raises:
            WeakReasoningError: All attempts were weak and `on_exhausted` is `"raise"`.
        """
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def _invoke(
        self,
        question: LanguageModelInput,
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AIMessage:
        attempts = Attempts(self._policy)

        def attempt() -> Attempts:
            number, change = len(attempts), NO_CHANGE
            try:
                change = self._resolve_change(attempts, kwargs)
                llm, settings = self._resolve_call(change, kwargs)
                message = llm.invoke(question, _of_attempt(config, run_manager, number), **settings)
            except Exception as error:
                if not number:
                    raise
                attempts.fail(change.to_dict(), error)
            else:
                attempts.add(change.to_dict(), message)
            return attempts

        return self._choose_message(Retrying(**self._tenacity())(attempt))

    async def _ainvoke(
        self,
        question: LanguageModelInput,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AIMessage:
        attempts = Attempts(self._policy)

        async def attempt() -> Attempts:
            number, change = len(attempts), NO_CHANGE
            try:
                # A model may have to be loaded for that, or a server asked.
                change = await asyncio.to_thread(self._resolve_change, attempts, kwargs)
                llm, settings = self._resolve_call(change, kwargs)
                message = await llm.ainvoke(question, _of_attempt(config, run_manager, number), **settings)
            except Exception as error:
                if not number:
                    raise
                attempts.fail(change.to_dict(), error)
            else:
                attempts.add(change.to_dict(), message)
            return attempts

        return self._choose_message(await AsyncRetrying(**self._tenacity())(attempt))

    @property
    def _policy(self) -> RetryPolicy:
        return RetryPolicy(
            max_low_share=self.max_low_share,
            max_attempts=self.max_attempts,
            escalation=self.escalation,
            on_exhausted=self.on_exhausted,
            retry_tool_calls=self.retry_tool_calls,
        )

    def _resolve_change(self, attempts: Attempts, settings: dict[str, Any]) -> RetryChange:
        """Return what the attempt after these changes."""
        if not len(attempts):
            return NO_CHANGE
        return resolve_change(self.escalation, len(attempts), self.llm, settings, attempts.best.good_beginning)

    def _resolve_call(
        self, change: RetryChange, settings: dict[str, Any]
    ) -> tuple[Runnable[LanguageModelInput, Any], dict[str, Any]]:
        """Return the model that makes an attempt, and the settings of its call."""
        model = change.model
        if model is None:
            if self.max_attempts > 1:
                settings = settings | settings_for_refining(self.escalation, self.llm, change)
            return self.llm, settings | change.settings
        settings = unwrap_model(self.llm)[1] | settings
        changed_settings = settings_for(model, settings) | change.settings
        if is_langnorm(model) or not (tools := settings.get("tools")):
            return model, changed_settings
        choice = {} if settings.get("tool_choice") is None else {"tool_choice": settings["tool_choice"]}
        return model.bind_tools(tools, **choice), changed_settings

    def _tenacity(self) -> dict[str, Any]:
        stop = stop_after_attempt(self.max_attempts)
        return {
            "stop": stop if self.stop is None else stop_any(stop, self.stop),  # type: ignore[arg-type]  # it only calls them
            "wait": wait_none() if self.wait is None else self.wait,
            "retry": retry_if_result(lambda attempts: attempts.need_retry),
            "retry_error_callback": lambda state: state.outcome.result(),
        }

    def _choose_message(self, attempts: Attempts) -> AIMessage:
        message: AIMessage = attempts.build_message(attempts.choose())
        return message

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any | None,
    ) -> list[AIMessage]:
        """Answer all inputs at once, so that their attempts share the model's padded batches."""
        model, settings = unwrap_model(self.llm)
        num_together = most_together(
            {**settings, **kwargs}, otherwise=getattr(model, "max_batch_size", _MOST_CALLS_AT_ONCE)
        )
        configs: list[RunnableConfig] = [
            {"max_concurrency": num_together, **of_input} for of_input in get_config_list(config, len(inputs))
        ]
        return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> NormRetry:
        """Return the same with tools that the model may call; arguments are those of the model's `bind_tools`."""
        return self.model_copy(update={"llm": with_tools(self.llm, tools, kwargs)})


def _check_model(llm: Any) -> None:
    if isinstance(llm, RunnableSequence):
        msg = (
            f"`llm={llm.get_name()!r}` is a chain, and its first step would get the settings of the retries. Wrap the "
            "model alone: `prompt | NormRetry(chat) | parser`."
        )
        raise OptionError(msg)
    if not isinstance(llm, Runnable):
        msg = f"`llm={brief(llm)}` is not allowed. Use a chat model, such as `ChatLangNorm()`."
        raise OptionError(msg)


def _check_strategy(name: str, value: object) -> None:
    if value is not None and not callable(value):
        refuse(name, value, f"an object of tenacity's `{name}` module, or None")


def _of_attempt(
    config: RunnableConfig, run_manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun, number: int
) -> RunnableConfig:
    """Return the configuration of an attempt: a child run that is hidden from streams, as it may be rejected."""
    child = patch_config(config, callbacks=run_manager.get_child(f"attempt:{number + 1}"))
    child["tags"] = [*child.get("tags", ()), _HIDDEN]
    return child

"""Several prompts in one call, as LangChain's `generate` and `batch` have them: one padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any
from uuid import UUID

from langchain_core.callbacks import Callbacks
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ContextThreadPoolExecutor, get_config_list

from langnorm.chat.batches import batch_of_calls, most_together
from langnorm.chat.fields import ChatFields


class ManyPrompts(ChatFields):
    """A chat model that answers the prompts of one call together."""

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer all prompts, together in padded batches of up to `max_batch_size`.

        Every prompt is a run of its own: with callbacks, its place in LangChain's cache, and an error if it failed. The
        others are answered all the same; then the first error is raised.

        Args:
            messages: The prompts.
            stop: Texts that end the answers.
            callbacks: LangChain's, for every run.
            run_id: Of the run of the first prompt.
            **kwargs: Settings of the calls; also `tags`, `metadata` and `run_name` for the runs.
        """
        generate = super().generate
        if len(messages) < 2:
            return generate(messages, stop, callbacks, run_id=run_id, **kwargs)
        num_threads = most_together(kwargs, self.max_batch_size)
        with batch_of_calls(self, len(messages)), ContextThreadPoolExecutor(num_threads) as executor:
            futures = [
                executor.submit(generate, [prompt], stop, callbacks, run_id=None if number else run_id, **kwargs)
                for number, prompt in enumerate(messages)
            ]
            wait(futures)
        results = [future.result() for future in futures]
        return LLMResult(
            generations=[generations for result in results for generations in result.generations],
            llm_output=self._combine_llm_outputs([result.llm_output for result in results]),
            run=[run for result in results for run in result.run or ()] or None,
        )

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer what `generate` answers, as it does."""
        with batch_of_calls(self, len(messages)):
            return await super().agenerate(messages, stop, callbacks, **kwargs)

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer all inputs, together in padded batches of up to `max_batch_size`."""
        most = most_together(kwargs, self.max_batch_size)
        configs = _with_threads_for(most, get_config_list(config, len(inputs)))
        with batch_of_calls(self, len(inputs), _num_expected(configs, most)):
            return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer all inputs, together in padded batches of up to `max_batch_size`."""
        configs = get_config_list(config, len(inputs))
        with batch_of_calls(self, len(inputs), _num_expected(configs, most_together(kwargs, self.max_batch_size))):
            return await super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)


def _num_expected(configs: Sequence[RunnableConfig], most: int) -> int | None:
    """Return for how many calls of a batch the engine is to wait: no more than the caller lets run at once.

    None is all of them. Where more run at once than there is room for, no batch has to wait.
    """
    at_once = configs[0].get("max_concurrency") if configs else None
    return at_once if at_once and at_once < most else None


def _with_threads_for(batch_size: int, configs: list[RunnableConfig]) -> list[RunnableConfig]:
    """Return the configs with a thread for each sequence of a batch, where the caller set no limit."""
    return [{"max_concurrency": batch_size, **config} for config in configs]

"""The chat model: LangChain's calls to requests, an engine's responses to messages.

A call goes through four steps, the same for invoke, stream and their asynchronous twins:

    settings   constructor fields, overridden by what the call gives      `chat.settings`
    request    prompt, grammar, layers, baseline and thresholds           `chat.preparing`
    response   tokens, norms, and what was done to them                   `engines`, or a server: `remote`
    message    text, reasoning, usage, norms                              `chat.results`, `chat.chunks`
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import BaseModel

from langnorm.chat.abilities import describe_abilities
from langnorm.chat.answering import Answering, LocalAnswering
from langnorm.chat.batches import announce_batch
from langnorm.chat.calibrating import deciding_settings, recorded_answer
from langnorm.chat.many_prompts import ManyPrompts
from langnorm.chat.preparing import PreparedCall, prepare_in_time, prepare_prompt, resolve_sampling
from langnorm.chat.prompts import Prompt
from langnorm.chat.settings import check_call_options, of_one
from langnorm.chat.structured_output import Method, build_structured_output
from langnorm.chat.tools import convert_tools
from langnorm.engines.base import ABILITIES
from langnorm.engines.options import Sampling
from langnorm.norms.calibration import RecordedAnswer
from langnorm.remote.chat import RemoteCalls
from langnorm.selection.options import Selection, resolve_selection

# In version 1 of its messages LangChain numbers the blocks of a stream as they come and merges those of equal number.
# Calls bring numbers of their own, which must not be among them.
_FIRST_V1_CALL_INDEX = 1_000


class ChatLangNorm(ManyPrompts, RemoteCalls):
    """Chat model that runs a local Hugging Face model and records how hard it is thinking.

    The l2 norm of the residual stream after late decoder layers signals reasoning intensity (arXiv 2606.06188). Every
    message carries it, step by step.

    Setup:
        ``pip install langnorm`` brings a small model, Abacus, which runs offline on the CPU. Any causal language
        model of transformers with a chat template works in its place.

    Key init args:
        model: ``"abacus"``, a folder, a GGUF file, or a name on the Hugging Face hub.
        engine: ``"auto"``, ``"transformers"``, ``"llamacpp"`` for GGUF files, ``"remote"``, or an Engine object.
        base_url, api_key: Of the server that ``"remote"`` asks, such as that of ``langnorm serve``.
        engine_kwargs: How llama.cpp runs the model, such as ``{"context_length": 8192, "num_gpu_layers": -1}``.
        model_kwargs: For ``from_pretrained``, such as ``{"device_map": "auto", "dtype": "bfloat16"}``; also
            ``layers_path``, ``chat_template``, ``gguf_file``, ``gguf_cache``, ``prefix_cache_bytes`` and
            ``packed_weights``.
        temperature, top_p, top_k, min_p, repetition_penalty, max_tokens, stop, seed, n: Sampling.
        norms, layers, profile, threshold, intensity, low_below, step_splitter: What messages say of norms.
        recursion, steering, suppression: What is done by norms while the model decodes.
        selection: Samples several answers and returns the best of them.

    ``help(langnorm.chat.fields)`` describes each of them. All but those that say where the model runs may also be
    given to a single call or to ``bind``, as may ``tools``, ``tool_choice``, ``parallel_tool_calls`` and
    ``response_format``.

    Instantiate:
        .. code-block:: python

            from langnorm import ChatLangNorm

            chat = ChatLangNorm(temperature=0)

    Invoke:
        .. code-block:: python

            reply = chat.invoke("Calculate 47 + 385.")
            reply.content                                  # 'The answer is 432.'
            reply.additional_kwargs["reasoning_content"]   # '47 + 385 = 432'

    Stream:
        .. code-block:: python

            for chunk in chat.stream("Calculate 47 + 385."):
                print(chunk.content, end="")

    Async:
        .. code-block:: python

            await chat.ainvoke("Calculate 47 + 385.")

    Tool calling:
        .. code-block:: python

            def weather(city: str) -> str:
                \"\"\"Get the weather in a city.\"\"\"

            reply = chat.bind_tools([weather]).invoke("What is the weather in Oslo?")
            reply.tool_calls  # [{'name': 'weather', 'args': {'city': 'Oslo'}, 'id': ..., 'type': 'tool_call'}]

    Structured output:
        .. code-block:: python

            class Person(BaseModel):
                name: str
                age: int

            chat.with_structured_output(Person).invoke("Anna is 34 years old.")

    Response metadata:
        .. code-block:: python

            from langnorm import NormTrace

            trace = NormTrace.from_message(reply)
            trace.layers, trace.steps[0].mean
    """

    def _resolve_model_profile(self) -> ModelProfile:
        return describe_abilities(self.engine, self.model, self.model_kwargs)

    def is_sampling(self) -> bool:
        """Return whether answers are drawn at random, given the model's own configuration; greedy ones are not."""
        settings = self._settings({})
        if not self.is_remote:
            return not resolve_sampling(settings, self.loaded_engine()).is_greedy
        if (temperature := settings.sampling.get("temperature")) is not None:
            return not Sampling(temperature=temperature).is_greedy
        return bool(self._remote_model().get("is_sampling", True))

    def is_able_to(self, ability: str) -> bool:
        """Return whether the engine has one of `langnorm.engines.base.ABILITIES`; it is loaded, or asked, for that."""
        if self.is_remote:
            return ability in self._remote_model().get("abilities", ABILITIES)
        return ability in getattr(self.loaded_engine(), "abilities", ABILITIES)

    def deciding_settings(self) -> dict[str, Any]:
        """Return the settings that decide answers, in plain types, the model's own configuration among them."""
        return deciding_settings(self._settings({}), self.loaded_engine())

    def prepare(self, prompt: LanguageModelInput, **settings: Any) -> PreparedCall:
        """Return a call, ready for its engine, for those who want more of an answer than a message holds.

        Args:
            prompt: A text or a list of messages.
            **settings: Settings of the call.
        """
        return self._prepare(self._convert_input(prompt).to_messages(), None, settings)

    def record_answers(self, prompts: list[LanguageModelInput], **settings: Any) -> list[RecordedAnswer]:
        """Return the answers to some prompts, which are generated together, with the norms of all decoder layers.

        Args:
            prompts: Texts or lists of messages.
            **settings: Settings of the calls.
        """
        replies = self.batch(prompts, **{"layers": "all", "norms": "tokens", "n": 1, **settings})
        return [recorded_answer(reply) for reply in replies]

    def prepare_prompt(self, prompt: Prompt, **settings: Any) -> PreparedCall:
        """Return a call for a prompt that is rendered already, such as that of a benchmark, for its engine to run.

        Args:
            prompt: The token ids.
            **settings: Settings of the call.

        Raises:
            OptionError: A setting is unknown, or its value is not allowed or does not fit the model.
        """
        resolved = self._settings(settings)
        return prepare_prompt(resolved, self.loaded_engine(resolved.model), prompt)

    def _prepare(self, messages: Sequence[BaseMessage], stop: Any, options: dict[str, Any]) -> PreparedCall:
        settings = self._settings(options | ({} if stop is None else {"stop": stop}))
        engine = self.loaded_engine(settings.model)
        announce_batch(self, engine)
        with engine.preparing():
            return prepare_in_time(settings, engine, messages, first_call_index=self._first_call_index)

    def _answering(self, messages: Sequence[BaseMessage], stop: Any, options: dict[str, Any]) -> Answering:
        """Return a call, ready to be answered."""
        if not self.is_remote:
            return LocalAnswering(self._prepare(messages, stop, options))
        options = options | ({} if stop is None else {"stop": stop})
        return self._remote_answering(self._settings(options), options, messages, self._first_call_index)

    @property
    def _first_call_index(self) -> int:
        return _FIRST_V1_CALL_INDEX if self.output_version == "v1" else 0

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        return self._answering(messages, stop, kwargs).generate()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        return await (await asyncio.to_thread(self._answering, messages, stop, kwargs)).agenerate()

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._answering(messages, stop, of_one(kwargs)).stream():
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        answering = await asyncio.to_thread(self._answering, messages, stop, of_one(kwargs))
        async with aclosing(answering.astream()) as chunks:
            async for chunk in chunks:
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return a model that may call tools.

        Args:
            tools: Tools of LangChain, functions, pydantic classes, TypedDicts, or dicts as OpenAI and Anthropic take.
            tool_choice: `"auto"` (default) leaves it to the model, `"any"` makes it call one, the name of a tool makes
                it call that one, `"none"` keeps it from calling any. A call that must be made is made by any model: its
                tokens are held to the tools' schemas, which needs the extra `structured`.
            parallel_tool_calls: Whether an answer may have several calls, where one must be made; one by default,
                because a model that must call goes on calling. One that may call or not decides itself.
            strict: Marks the tools as strict, where the chat template shows that.
            **kwargs: Settings of the calls, such as `response_format` or `temperature`.

        Raises:
            OptionError: A tool is not one, or the choice names none of them.
        """
        converted = convert_tools(tools, strict=strict)
        options: dict[str, Any] = {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        options = {name: value for name, value in options.items() if value is not None} | kwargs
        bound: Runnable[LanguageModelInput, AIMessage] = self.bind(tools=converted, **options)
        return bound

    def bind(self, **kwargs: Any) -> Any:  # LangChain has no public name for the type
        """Return this model with settings for all of its calls.

        Args:
            **kwargs: Settings of the calls, as a single call takes them.

        Raises:
            OptionError: There is no such setting, or its value is not allowed.
        """
        check_call_options(kwargs)
        return super().bind(**kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return a chain that answers with an object of a schema; needs the extra `structured`.

        The reasoning stays free; what follows it is held to the schema, so that any model's answer has that form.

        Args:
            schema: A pydantic class (version 1 or 2), a TypedDict or any JSON schema, which need not be an object's.
                With `method="json_mode"` it may be None, for any JSON object.
            method: `"json_schema"`, `"function_calling"`, which shows the model the schema as a tool, or `"json_mode"`.
            include_raw: Whether the result is a dict of `raw`, `parsed` and `parsing_error`.
            strict: Taken because other chat models have it; the schema is always followed to the letter.
            **kwargs: Settings of the calls.

        Raises:
            OptionError: The method is unknown, or the schema is not one or malformed. When it is called: the schema
                has something that no grammar can express, or its shortest answer does not fit.
            OutputParserException: When it is called without `include_raw`: the answer was cut off at `max_tokens`, or
                is not in its schema.
        """
        return build_structured_output(
            self, schema, method=method, include_raw=include_raw, strict=strict, settings=kwargs
        )

    def with_selection(self, selection: Selection | None = None, **options: Any) -> Self:
        """Return this chat model with a selection: it samples `n` answers and returns the best one.

        It stays a chat model: tools, structured output, streams and batches work as before. A stream can begin only
        when all answers have ended.

        Args:
            selection: The selection; where it is not given, one of these options.
            **options: Fields of `Selection`, such as `n`, `score` and `vote`.

        Raises:
            OptionError: An option is unknown, or its value is not allowed.
        """
        return self.model_copy(update={"selection": resolve_selection(selection, options)})

"""The chat model: LangChain's calls to requests, an engine's responses to messages.

A call goes through four steps, the same for invoke, stream and their asynchronous twins:

    settings   constructor fields, overridden by what the call gives      `settings.call_settings`
    prompt     messages through the model's chat template                 `messages.render_prompt`
    request    what the engine needs                                      `_prepare`
    message    text, reasoning, usage, norms                              `results`, `messages`
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from langnorm.abacus import CONTEXT_LENGTH
from langnorm.chat.control_tokens import SpecialTokens
from langnorm.chat.grammars import build_grammar
from langnorm.chat.prompts import render_prompt
from langnorm.chat.results import PreparedCall, astream_chunks, stream_chunks
from langnorm.chat.settings import (
    CALL_NAMES,
    call_settings,
    check_known,
    plans_of,
    pruner_of,
    recording_of,
    sampling_of,
    scoring_of,
    told_apart,
    top_logprobs_of,
)
from langnorm.chat.structured_output import Method, build_structured_output
from langnorm.chat.tools import convert_tools, resolve_tool_use
from langnorm.checks import build_options
from langnorm.engines.base import Engine, Request
from langnorm.engines.registry import BUNDLED_MODEL, ENGINES, check_engine_name, get_engine
from langnorm.errors import OptionError
from langnorm.norms.baseline import AUTO, LOW_BELOW
from langnorm.selection.options import Selection
from langnorm.text.readers import reader_factory
from langnorm.text.tool_calls import detect_tool_form

# In version 1 of its messages LangChain numbers the blocks of a stream as they come and merges those of equal number.
# Calls bring numbers of their own, which must not be among them.
_BEHIND_BLOCKS = 1_000


class ChatLangNorm(BaseChatModel):
    """Chat model that runs a local Hugging Face model and records how hard it is thinking.

    The l2 norm of the residual stream after late decoder layers signals reasoning intensity (arXiv 2606.06188). Every
    message carries it, step by step.

    Setup:
        ``pip install langnorm`` brings a small model, Abacus, which runs offline on the CPU. Any causal language
        model of transformers with a chat template works in its place.

    Key init args:
        model: ``"abacus"``, a folder, or a name on the Hugging Face hub.
        engine: ``"transformers"``, or an Engine object.
        model_kwargs: For ``from_pretrained``, such as ``{"device_map": "auto", "dtype": "bfloat16"}``; also
            ``layers_path`` and ``chat_template`` for models that need them.
        temperature, top_p, top_k, min_p, repetition_penalty: Sampling; by default what the model's own generation
            configuration says. ``temperature=0`` is greedy. Where that configuration samples and names no ``top_k``,
            all tokens stay possible; transformers' ``generate`` would keep 50.
        max_tokens: Most tokens to generate; by default as many as the context holds.
        stop, seed, n: Stop texts, seed, and number of completions per call.
        enable_thinking: Whether the model may reason before it answers, where its template knows of that.
        norms: ``"steps"`` (default), ``"tokens"`` to keep every token's norms, ``"off"``.
        layers: ``"late"`` (default), ``"all"``, or indices.
        profile: A ``NormProfile`` or the path of one, for intensities; ``"auto"`` (default) takes the one beside the
            weights, or else what this process has seen of the model; None takes the latter. The field is called
            ``norm_profile``, because ``chat.profile`` is LangChain's description of a model's abilities.
        threshold: Which norms are high: ``"iqr"`` (default), ``{"rule": "quantile", "q": 0.9}``, a number,
            numbers by layer, or ``"reference"`` for the paper's own estimator.
        low_below: A step whose intensity is below this is low; 0.1 by default.
        step_splitter: ``"sentence"`` (default), ``"line"``, ``"paragraph"``, or a function from a text to the
            ``(start, end)`` offsets of its steps.
        recursion: A ``Recursion`` or a dict of its fields: runs late layers again for tokens of high norm.
        steering: A ``Steering`` or a dict: pulls slack states toward the sequence's own states of high norm.
        suppression: A ``Suppression`` or a dict: shrinks states, to see whether their norm mattered.
        selection: A ``Selection`` or a dict of its fields: samples several answers and returns the best of them.
        logprobs, top_logprobs: Whether ``response_metadata["logprobs"]`` has the log-probability of each token, in
            OpenAI's form, and of how many most likely ones beside it.
        special_tokens: What becomes of control tokens that a message spells out: ``"literal"`` (default) reads them as
            text, so that no user can forge a turn; ``"raise"`` refuses them; ``"allow"`` takes them for control.
        timeout: Most seconds that a call may take, its wait for its turn included.
        max_retries, api_key: Taken because other chat models have them, and without effect: there is no connection
            that could fail.
        max_batch_size: Most sequences in one forward pass.

    All of them but engine and model_kwargs may also be given to a single call or to ``bind``, as may ``tools``,
    ``tool_choice``, ``parallel_tool_calls`` and ``response_format``.

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

    model: str = BUNDLED_MODEL
    engine: Any = "transformers"
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    stop: Any = None
    seed: int | None = None
    n: int = 1
    logprobs: bool | None = None
    top_logprobs: int | None = None
    enable_thinking: bool = True
    special_tokens: SpecialTokens = "literal"
    norms: Literal["off", "steps", "tokens"] = "steps"
    layers: Any = "late"
    norm_profile: Any = AUTO
    threshold: Any = "iqr"
    low_below: float = LOW_BELOW
    step_splitter: Any = "sentence"
    recursion: Any = None
    steering: Any = None
    suppression: Any = None
    selection: Any = None
    streaming: bool = False
    timeout: float | None = None
    max_retries: int = 0
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    max_batch_size: int = 16

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def __init__(self, **fields: Any) -> None:
        check_known(fields, [*type(self).model_fields], type(self).__name__)
        fields = told_apart(fields)
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise _option_error(error) from None

    @model_validator(mode="after")
    def _check_values(self) -> ChatLangNorm:
        if isinstance(self.engine, str):
            check_engine_name(self.engine)
        elif not isinstance(self.engine, Engine):
            msg = f"`engine={self.engine!r}` is not an engine. Use a name or an object with Engine's methods."
            raise OptionError(msg)
        self._settings({})
        return self

    @property
    def _llm_type(self) -> str:
        return "langnorm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that changes an answer: two models with different keys never share a cached one."""
        names = (
            "model_kwargs",
            *(name for name in CALL_NAMES if name not in ("timeout", "max_retries", "max_batch_size")),
        )
        engine = self.engine if isinstance(self.engine, str) else repr(self.engine)
        # LangChain overwrites `stop` with the call's, so the constructor's needs a name of its own.
        return {"engine": engine, "default_stop": self.stop} | {name: getattr(self, name) for name in names}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "langnorm"
        params["ls_model_name"] = kwargs.get("model", self.model)
        return params

    def _settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields, overridden by what a call gives."""
        return call_settings(given, lambda name: getattr(self, name))

    def _resolve_model_profile(self) -> ModelProfile:
        has_grammars = find_spec("llguidance") is not None
        profile = ModelProfile(
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            tool_calling=True,
            tool_choice=has_grammars,
            structured_output=has_grammars,
        )
        if self.model == BUNDLED_MODEL and self.engine in ENGINES:
            profile |= ModelProfile(max_input_tokens=CONTEXT_LENGTH, reasoning_output=True)
        return profile

    def loaded_engine(self, model: str | None = None) -> Engine:
        """Return the engine, with the weights loaded.

        Args:
            model: Another model than this one's, as a call may name it.

        Raises:
            ModelError: The weights cannot be loaded.
        """
        if isinstance(self.engine, str):
            return get_engine(self.engine, model or self.model, self.model_kwargs)
        engine: Engine = self.engine
        return engine

    def samples(self) -> bool:
        """Return whether answers are drawn at random, given the model's own configuration; greedy ones are not."""
        return sampling_of(self._settings({}), self.loaded_engine()).temperature > 0

    def _prepare(self, messages: Sequence[BaseMessage], stop: Any, given: dict[str, Any]) -> PreparedCall:
        settings = self._settings(given | ({} if stop is None else {"stop": stop}))
        engine = self.loaded_engine(settings["model"])
        with engine.preparing():
            return self._prepared(engine, messages, settings)

    def _prepared(self, engine: Engine, messages: Sequence[BaseMessage], settings: Mapping[str, Any]) -> PreparedCall:
        tokenizer, use = engine.tokenizer, settings["tool_use"]
        prompt = render_prompt(
            tokenizer,
            messages,
            enable_thinking=settings["enable_thinking"],
            special_tokens=settings["special_tokens"],
            tools=use.tools,
        )
        form = detect_tool_form(str(tokenizer.chat_template))
        grammar = build_grammar(
            tokenizer,
            use=use,
            schema=settings["schema"],
            form=form,
            is_thinking=prompt.is_thinking,
            may_think=settings["enable_thinking"],
        )
        recording, scoring = recording_of(settings, engine), scoring_of(settings, engine)
        selection, top_logprobs = settings["selection"], top_logprobs_of(settings)
        recorded = recording or scoring
        request = Request(
            prompt_ids=prompt.ids,
            sampling=sampling_of(settings, engine),
            layers=recorded.layers if recorded else (),
            max_batch_size=settings["max_batch_size"],
            timeout=settings["timeout"],
            plans=plans_of(settings, engine),
            grammar=grammar,
            top_logprobs=0 if top_logprobs is None and selection and selection.needs_logprobs else top_logprobs,
            pruner=pruner_of(selection, scoring, engine),
        )
        new_reader = reader_factory(tokenizer, prompt.ids, use.tools, form, is_thinking=prompt.is_thinking)
        return PreparedCall(
            engine=engine,
            prompt=prompt,
            request=request,
            recording=recording,
            model_name=settings["model"],
            new_reader=new_reader,
            has_logprobs=top_logprobs is not None,
            selection=selection,
            scoring=scoring,
            first_call_index=_BEHIND_BLOCKS if self.output_version == "v1" else 0,
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        call = self._prepare(messages, stop, kwargs)
        return call.result(call.engine.generate([call.request])[0])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        call = await asyncio.to_thread(self._prepare, messages, stop, kwargs)
        return call.result((await call.engine.agenerate([call.request]))[0])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._prepare(messages, stop, kwargs | {"n": 1})
        for chunk in stream_chunks(call):
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
        call = await asyncio.to_thread(self._prepare, messages, stop, kwargs | {"n": 1})
        async with aclosing(astream_chunks(call)) as chunks:
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
            parallel_tool_calls: Whether an answer may have several calls, where one must be made; True by default.
            strict: Marks the tools as strict, where the chat template shows that.
            **kwargs: Settings of the calls, such as `response_format` or `temperature`.

        Raises:
            OptionError: A tool or the choice is none.
        """
        converted = convert_tools(tools, strict=strict)
        given: dict[str, Any] = {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        given = {name: value for name, value in given.items() if value is not None} | kwargs
        resolve_tool_use(converted, tool_choice, is_parallel=parallel_tool_calls)  # this is the check
        return self.bind(tools=converted, **given)

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
            schema: A pydantic class (version 1 or 2), a TypedDict or a JSON schema. With `method="json_mode"` it may be
                None, for any JSON object.
            method: `"json_schema"`, `"function_calling"`, which shows the model the schema as a tool, or `"json_mode"`.
            include_raw: Whether the result is a dict of `raw`, `parsed` and `parsing_error`.
            strict: Taken because other chat models have it; the schema is always followed to the letter.
            **kwargs: Settings of the calls.

        Raises:
            OptionError: The method is unknown, or the schema is none.
        """
        return build_structured_output(
            self, schema, method=method, include_raw=include_raw, strict=strict, settings=kwargs
        )

    def with_selection(self, selection: Selection | None = None, **options: Any) -> Self:
        """Return this chat model with a selection: it samples `n` answers and returns the best one.

        It stays a chat model: tools, structured output, streams and batches work as before. A stream can begin only
        when all answers have ended.

        Args:
            selection: The selection; by default one of these options.
            **options: Fields of `Selection`, such as `n`, `score` and `vote`.

        Raises:
            OptionError: An option is unknown, or its value is not allowed.
        """
        chosen = build_options(Selection, "selection", options if selection is None else selection)
        return self.model_copy(update={"selection": chosen})

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer all inputs, together in padded batches of up to `max_batch_size`."""
        configs = _wide(get_config_list(config, len(inputs)), self.max_batch_size)
        with self._expecting(len(inputs), kwargs):
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
        with await asyncio.to_thread(self._expecting, len(inputs), kwargs):
            return await super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)

    def _expecting(self, num_inputs: int, given: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Announce the inputs to the engine, and compare all of them with the same norms."""
        if num_inputs < 2:
            return nullcontext()
        return _together(self.loaded_engine(given.get("model")), num_inputs)


@contextmanager
def _together(engine: Engine, num_inputs: int) -> Iterator[None]:
    with engine.expect(num_inputs), engine.statistics.frozen():
        yield


def _wide(configs: list[RunnableConfig], max_batch_size: int) -> list[RunnableConfig]:
    """Return the configs with room for a whole batch of threads, where the caller set no limit."""
    return [{"max_concurrency": max_batch_size, **config} for config in configs]


def _option_error(error: ValidationError) -> OptionError:
    """Return the first of pydantic's complaints as one of ours."""
    first = error.errors()[0]
    original = first.get("ctx", {}).get("error")
    if isinstance(original, OptionError):
        return original
    name = ".".join(map(str, first["loc"]))
    return OptionError(f"`{name}={first['input']!r}` is not allowed. {first['msg']}.")

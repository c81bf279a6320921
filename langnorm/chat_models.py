"""The chat model: LangChain's calls to requests, an engine's responses to messages.

A call goes through four steps, the same for invoke, stream and their asynchronous twins:

    settings   constructor fields, overridden by what the call gives      `_settings`
    prompt     messages through the model's chat template                 `messages.render_prompt`
    request    what the engine needs                                      `_prepare`
    message    text, reasoning, usage, norms                              `messages.closing_fields`
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import ConfigDict, Field, ValidationError, model_validator

from langnorm.abacus import CONTEXT_LENGTH
from langnorm.engines.base import Delta, Engine, Request, Response
from langnorm.engines.registry import BUNDLED_MODEL, ENGINES, check_engine_name, get_engine
from langnorm.errors import OptionError, closest
from langnorm.messages import Prompt, Recording, closing_fields, render_prompt, to_message
from langnorm.norms.baseline import AUTO, LOW_BELOW, Baseline, baseline_for, check_profile
from langnorm.norms.layers import select_layers
from langnorm.norms.thresholds import threshold_rule
from langnorm.options import Sampling
from langnorm.steps import get_splitter
from langnorm.text import ReasoningSplitter, Segment

_SAMPLING_NAMES = tuple(field.name for field in fields(Sampling))
_NORM_NAMES = ("norms", "layers", "norm_profile", "threshold", "low_below", "step_splitter")
_CALL_NAMES = ("model", *_SAMPLING_NAMES, "enable_thinking", *_NORM_NAMES, "timeout", "max_batch_size")
_ACCEPTED_NAMES = ("stream", "profile")  # LangChain's own need nothing done; `profile` is told apart
_NORMS = ("off", "steps", "tokens")


@dataclass(frozen=True, slots=True)
class _Call:
    """One prepared call."""

    engine: Engine
    prompt: Prompt
    request: Request
    recording: Recording | None
    model_name: str

    def closing(self, completion: Any) -> dict[str, Any]:
        return closing_fields(self.prompt, completion, recording=self.recording, model_name=self.model_name)

    def result(self, response: Response) -> ChatResult:
        messages = [to_message(self.prompt, c, self.closing(c)) for c in response.completions]
        return ChatResult(generations=[_generation(message) for message in messages])


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
            configuration says. ``temperature=0`` is greedy.
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
        timeout: Most seconds that a call may take, its wait for its turn included.
        max_batch_size: Most sequences in one forward pass.

    All of them but engine and model_kwargs may also be given to a single call or to ``bind``.

    Instantiate:
        .. code-block:: python

            from langnorm import ChatLangNorm

            chat = ChatLangNorm(temperature=0)

    Invoke:
        .. code-block:: python

            reply = chat.invoke("What is 47 + 385?")
            reply.content                                  # 'The answer is 432.'
            reply.additional_kwargs["reasoning_content"]   # '47 + 385 = 432'

    Stream:
        .. code-block:: python

            for chunk in chat.stream("What is 47 + 385?"):
                print(chunk.content, end="")

    Async:
        .. code-block:: python

            await chat.ainvoke("What is 47 + 385?")

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
    enable_thinking: bool = True
    norms: Literal["off", "steps", "tokens"] = "steps"
    layers: Any = "late"
    norm_profile: Any = AUTO
    threshold: Any = "iqr"
    low_below: float = LOW_BELOW
    step_splitter: Any = "sentence"
    streaming: bool = False
    timeout: float | None = None
    max_batch_size: int = 16

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def __init__(self, **fields: Any) -> None:
        _check_known(fields, [*type(self).model_fields], type(self).__name__)
        fields = _told_apart(fields)
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
        names = ("model_kwargs", *(name for name in _CALL_NAMES if name not in ("timeout", "max_batch_size")))
        engine = self.engine if isinstance(self.engine, str) else repr(self.engine)
        # LangChain overwrites `stop` with the call's, so the constructor's needs a name of its own.
        return {"engine": engine, "default_stop": self.stop} | {name: getattr(self, name) for name in names}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "langnorm"
        params["ls_model_name"] = kwargs.get("model", self.model)
        return params

    def _settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields, overridden by what a call gives, all checked as far as that needs no model."""
        _check_known(given, [*_CALL_NAMES, *_ACCEPTED_NAMES], "This call")
        given = _told_apart(given)
        settings = {name: given.get(name, getattr(self, name)) for name in _CALL_NAMES}
        if settings["norms"] not in _NORMS:
            hint = closest(str(settings["norms"]), _NORMS)
            msg = f'`norms={settings["norms"]!r}` is not allowed. Use "off", "steps" or "tokens".{hint}'
            raise OptionError(msg)
        timeout = settings["timeout"]
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            msg = f"`timeout={timeout!r}` is not allowed. Use seconds above 0, or None for no limit."
            raise OptionError(msg)
        if not isinstance(settings["max_batch_size"], int) or settings["max_batch_size"] < 1:
            msg = f"`max_batch_size={settings['max_batch_size']!r}` is not allowed. Use 1 or above."
            raise OptionError(msg)
        if not isinstance(settings["model"], str) or not settings["model"]:
            msg = f'`model={settings["model"]!r}` is not allowed. Use a folder or a name, such as `"abacus"`.'
            raise OptionError(msg)
        if isinstance(settings["layers"], str):
            select_layers(settings["layers"], 1)  # type: ignore[arg-type]  # this is the check
        check_profile(settings["norm_profile"])
        get_splitter(settings["step_splitter"])
        settings["threshold"] = threshold_rule(settings["threshold"])
        Baseline(low_below=settings["low_below"])
        _sampling(settings, {})
        return settings

    def _resolve_model_profile(self) -> ModelProfile:
        profile = ModelProfile(text_inputs=True, text_outputs=True, image_inputs=False, audio_inputs=False)
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
        return _sampling(self._settings({}), _defaults(self.loaded_engine())).temperature > 0

    def _prepare(self, messages: Sequence[BaseMessage], stop: Any, given: dict[str, Any]) -> _Call:
        settings = self._settings(given | ({} if stop is None else {"stop": stop}))
        engine = self.loaded_engine(settings["model"])
        prompt = render_prompt(engine.tokenizer, messages, enable_thinking=settings["enable_thinking"])
        recording = _recording(settings, engine)
        request = Request(
            prompt_ids=prompt.ids,
            sampling=_sampling(settings, _defaults(engine)),
            layers=recording.layers if recording else (),
            max_batch_size=settings["max_batch_size"],
            timeout=settings["timeout"],
        )
        return _Call(engine, prompt, request, recording, settings["model"])

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
        chunks = _Chunks(call)
        deltas = call.engine.stream(call.request)
        try:
            for delta in deltas:
                for chunk in chunks.of(delta):
                    if run_manager:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
        finally:
            deltas.close()  # type: ignore[attr-defined]

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = await asyncio.to_thread(self._prepare, messages, stop, kwargs | {"n": 1})
        chunks = _Chunks(call)
        deltas = call.engine.astream(call.request)
        try:
            async for delta in deltas:
                for chunk in chunks.of(delta):
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
        finally:
            await deltas.aclose()  # type: ignore[attr-defined]

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


class _Chunks:
    """Turns what an engine streams into chunks; the last one carries everything that is said once."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._splitter = ReasoningSplitter(is_thinking=call.prompt.is_thinking)

    def of(self, delta: Delta) -> Iterator[ChatGenerationChunk]:
        segments = [s for token, piece in delta.pieces for s in self._splitter.feed(token, piece)]
        if delta.completion:
            segments += self._splitter.finish()
        yield from map(_text_chunk, segments)
        if delta.completion:
            closing = self._call.closing(delta.completion)
            message = AIMessageChunk(content="", chunk_position="last", **closing)
            info = {"finish_reason": delta.completion.finish_reason}
            yield ChatGenerationChunk(message=message, generation_info=info)


def _text_chunk(segment: Segment) -> ChatGenerationChunk:
    if segment.part == "reasoning":
        message = AIMessageChunk(content="", additional_kwargs={"reasoning_content": segment.text})
    else:
        message = AIMessageChunk(content=segment.text)
    return ChatGenerationChunk(message=message)


def _generation(message: AIMessage) -> ChatGeneration:
    info = {"finish_reason": message.response_metadata["finish_reason"]}
    return ChatGeneration(message=message, generation_info=info)


@contextmanager
def _together(engine: Engine, num_inputs: int) -> Iterator[None]:
    with engine.expect(num_inputs), engine.statistics.frozen():
        yield


def _recording(settings: Mapping[str, Any], engine: Engine) -> Recording | None:
    if settings["norms"] == "off":
        return None
    layers = select_layers(settings["layers"], engine.num_layers)
    baseline = baseline_for(
        engine,
        layers,
        profile=settings["norm_profile"],
        rule=settings["threshold"],
        low_below=settings["low_below"],
    )
    return Recording(settings["norms"], layers, get_splitter(settings["step_splitter"]), baseline)


def _told_apart(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with a `profile` that is about norms under its own name.

    A dict is LangChain's description of a model's abilities.
    """
    fields = dict(given)
    if "profile" in fields and not isinstance(fields["profile"], dict):
        fields["norm_profile"] = fields.pop("profile")
    return fields


def _wide(configs: list[RunnableConfig], max_batch_size: int) -> list[RunnableConfig]:
    """Return the configs with room for a whole batch of threads, where the caller set no limit."""
    return [{"max_concurrency": max_batch_size, **config} for config in configs]


def _defaults(engine: Engine) -> dict[str, Any]:
    """Return what the model's own generation configuration says of sampling."""
    config = engine.generation_config
    found = {name: getattr(config, name, None) for name in ("top_p", "top_k", "min_p", "repetition_penalty")}
    found["temperature"] = (config.temperature if config.temperature is not None else 1.0) if config.do_sample else 0.0
    found["max_tokens"] = config.max_new_tokens
    return {name: value for name, value in found.items() if value is not None}


def _sampling(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Sampling:
    given = {name: settings[name] for name in _SAMPLING_NAMES if settings[name] is not None}
    return Sampling(**(dict(defaults) | given))


def _option_error(error: ValidationError) -> OptionError:
    """Return the first of pydantic's complaints as one of ours."""
    first = error.errors()[0]
    original = first.get("ctx", {}).get("error")
    if isinstance(original, OptionError):
        return original
    name = ".".join(map(str, first["loc"]))
    return OptionError(f"`{name}={first['input']!r}` is not allowed. {first['msg']}.")


def _check_known(given: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    for name in given:
        if name not in allowed:
            hint = closest(name, allowed) or f" Use one of: {', '.join(allowed)}."
            msg = f"{where} has no option `{name}`.{hint}"
            raise OptionError(msg)

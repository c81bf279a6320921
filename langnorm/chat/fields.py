"""The fields of the chat model: what its constructor takes, checked as a call's options are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from pydantic import ConfigDict, Field, SecretStr, SkipValidation, ValidationError, ValidationInfo, field_validator

from langnorm.chat.control_tokens import SpecialTokens
from langnorm.chat.servers import AUTO_MODEL, read_base_url
from langnorm.chat.settings import (
    CALL_NAMES,
    CallSettings,
    Norms,
    check_names,
    resolve_settings,
    with_norm_profile,
)
from langnorm.checks import brief, check_flag, is_nested_deeply, refuse
from langnorm.credentials import hide_credentials
from langnorm.engines.base import Engine
from langnorm.engines.registry import (
    AUTO_ENGINE,
    BUNDLED_MODEL,
    REMOTE_ENGINE,
    check_engine_name,
    choose_engine,
    find_engine,
    get_engine,
)
from langnorm.errors import LangNormError, OptionError
from langnorm.interventions.options import Recursion, Steering, Suppression
from langnorm.norms.baseline import AUTO, LOW_BELOW, ProfileOption
from langnorm.norms.layers import LayerSelection
from langnorm.norms.step_ranks import IntensityKind
from langnorm.norms.thresholds import ThresholdOption
from langnorm.selection.options import Selection
from langnorm.text.steps import Splitter

_REMOTE_RETRIES = 2


class ChatFields(BaseChatModel):
    """What `ChatLangNorm` is made of.

    All of it but what says where the model runs (`engine`, `base_url`, `api_key`, `engine_kwargs`, `model_kwargs`) may
    also be given to a single call.
    """

    model: SkipValidation[str] = BUNDLED_MODEL
    """`"abacus"`, a folder, a GGUF file, a name on the Hugging Face hub, or one with a file: `"repo/name:file.gguf"`.
    With an Engine object, what messages call it; by default the engine's own name."""
    engine: SkipValidation[str | Engine] = AUTO_ENGINE
    """What runs the model: `"transformers"`, `"llamacpp"` for GGUF files, `"vllm"`, `"remote"` for a server at
    `base_url`, the name of an engine of another package, or an Engine object. `"auto"` takes llama.cpp for a GGUF file
    if llama-cpp-python is installed and `model_kwargs` has nothing that transformers alone knows of, and transformers
    for everything else. `response_metadata["engine"]` and the log say which one it took."""
    base_url: SkipValidation[str | None] = None
    """Of `engine="remote"`: the address of a server, such as `"http://127.0.0.1:8000/v1"` of `langnorm serve`. The
    model is then by default the one that it runs, and no torch is imported here."""
    engine_kwargs: dict[str, Any] = Field(default_factory=dict)
    """How the engine runs the model. That of transformers has no such options; those of llama.cpp are the fields of
    `LlamaOptions`, such as `context_length`, `num_threads` and `num_gpu_layers`; those of vLLM are `in_process`,
    `interventions`, `verbose` and vLLM's `EngineArgs`, such as `tensor_parallel_size` and `max_model_len`."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """For the loader of the engine. That of transformers hands it to `from_pretrained`, except

    - `layers_path`: where the decoder layers are, such as `"model.layers"`, if they are not found by themselves;
    - `chat_template`: a Jinja template, as text or the `Path` of a file, in place of the tokenizer's;
    - `gguf_file`: the name of a GGUF file in the folder or repository;
    - `gguf_cache`: where the unpacked weights of a GGUF file are kept for the next start: True for the folder that the
      environment variable `LANGNORM_CACHE` names, or else `langnorm` beside the hub's cache; False for nowhere; or a
      folder;
    - `prefix_cache_bytes`: the most memory in which prompts of recent calls are kept, so that later ones that begin
      alike start from there; 0 keeps none;
    - `packed_weights`: `"int8"` or `"int4"` rounds the weights of a model on a CPU, in bfloat16, so that decode steps
      of up to three sequences read less; answers and norms are then those of the rounded weights.

    A GGUF file is unpacked to float32, which holds its weights exactly, unless `dtype` says otherwise. Code that comes
    with a model is run only with `trust_remote_code=True`. Tokens and passwords are kept as `SecretStr` objects, which
    show asterisks."""
    temperature: SkipValidation[float | None] = None
    """0 is greedy; None leaves it, as the others of sampling, to the model's own generation configuration.

    Where that one samples and names no `top_k`, all tokens stay possible; transformers' `generate` would keep 50.
    """
    top_p: SkipValidation[float | None] = None
    """Keeps the smallest set of tokens whose probability reaches this, in (0, 1]."""
    top_k: SkipValidation[int | None] = None
    """Keeps this many most likely tokens; 0 keeps all."""
    min_p: SkipValidation[float | None] = None
    """Keeps tokens at least this share as likely as the most likely one, in [0, 1]."""
    repetition_penalty: SkipValidation[float | None] = None
    """Above 1 makes tokens that occurred less likely."""
    max_tokens: SkipValidation[int | None] = None
    """Most tokens to generate; None means as many as the context holds."""
    stop: SkipValidation[str | Sequence[str] | None] = None
    """Texts that end the answer and are cut from it."""
    seed: SkipValidation[int | None] = None
    """Makes sampled answers reproducible; None draws a new seed for each call."""
    n: SkipValidation[int] = 1
    """Number of completions per call."""
    logprobs: SkipValidation[bool | None] = None
    """Whether messages have the log-probability of each token, in OpenAI's form."""
    top_logprobs: SkipValidation[int | None] = None
    """How many most likely tokens are reported beside each one, 0 to 20."""
    distribution: SkipValidation[bool] = False
    """Whether messages keep how sure the model was of each token: `additional_kwargs["langnorm"]["token_distribution"]`
    has a list for each field of `langnorm.reductions.Distribution`, such as `entropy` in nats."""
    lens: SkipValidation[bool | LayerSelection | None] = False
    """Whether messages keep how late in the stack each token settled: `additional_kwargs["langnorm"]["token_lens"]` has
    a list for each field of `langnorm.reductions.Lens`. True reads the late layers; what `layers` takes names others.
    It costs one unembedding per token and layer, and only the engine of transformers does it."""
    enable_thinking: SkipValidation[bool] = True
    """Whether the model may reason before it answers, where its template knows of that."""
    special_tokens: SkipValidation[SpecialTokens] = "literal"
    """What becomes of control tokens that a message spells out: `"literal"` reads them as text, so that no user can
    forge a turn; `"raise"` refuses them; `"allow"` takes them for control."""
    norms: SkipValidation[Norms] = "steps"
    """What messages say of norms: `"steps"`, `"tokens"`, which keeps those of every token, or `"off"`."""
    layers: SkipValidation[LayerSelection] = "late"
    """Which decoder layers are recorded: `"late"`, `"deep"`, `"middle"`, `"all"` or 0-based indices."""
    norm_profile: SkipValidation[ProfileOption] = AUTO
    """What intensities are measured by: a `NormProfile` or the path of one; `"auto"` takes the one beside the weights,
    or else what this process has seen of the model; None takes the latter. Also taken as `profile`: the field has
    another name because `chat.profile` is LangChain's description of a model's abilities."""
    threshold: SkipValidation[ThresholdOption] = "iqr"
    """Which norms are high: `"iqr"`, `{"rule": "quantile", "q": 0.9}`, a norm, norms by layer, or `"reference"` for the
    paper's own estimator."""
    intensity: SkipValidation[IntensityKind] = "layer"
    """What intensities are measured by: `"layer"` compares a token's norms with those of all tokens, `"token"` with the
    usual ones of the same token id, as a profile or this process knows them."""
    low_below: SkipValidation[float] = LOW_BELOW
    """Intensity below which a step is low, 0 to 1."""
    step_splitter: SkipValidation[str | Splitter] = "sentence"
    """What a step is: `"sentence"`, `"line"`, `"paragraph"`, or a function from a text to (start, end) offsets."""
    recursion: SkipValidation[Recursion | Mapping[str, Any] | None] = None
    """Runs late layers again for tokens of high norm."""
    steering: SkipValidation[Steering | Mapping[str, Any] | None] = None
    """Pulls states toward the sequence's own earlier ones of high norm."""
    suppression: SkipValidation[Suppression | Mapping[str, Any] | None] = None
    """Shrinks states, to see whether their norm mattered."""
    selection: SkipValidation[Selection | Mapping[str, Any] | None] = None
    """Samples several answers and returns the best of them."""
    streaming: bool = False
    """Whether `invoke` goes through the stream, as with other chat models of LangChain."""
    timeout: SkipValidation[float | None] = None
    """Most seconds that a call may take, its wait for its turn included."""
    max_retries: SkipValidation[int] = 0
    """How often a server is asked again that cannot be reached or has too much to do, with `engine="remote"` by default
    twice; without effect on an engine of this process."""
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """The key to a server, by default what the environment variable `LANGNORM_API_KEY` has; without effect on an engine
    of this process."""
    max_batch_size: SkipValidation[int] = 16
    """Most sequences in one forward pass. vLLM forms the batches itself: there, `max_num_seqs` of `engine_kwargs`."""

    @field_validator("model_kwargs", "engine_kwargs")
    @classmethod
    def _hide_credentials(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if is_nested_deeply(value):
            refuse(str(info.field_name), value, "lists and dicts that are nested less deeply")
        hidden: dict[str, Any] = hide_credentials(value)
        return hidden

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)

    def __init__(self, **fields: Any) -> None:
        check_names(fields, [*type(self).model_fields], type(self).__name__)
        fields = with_norm_profile(fields)
        if isinstance(model := fields.get("model"), os.PathLike):
            fields["model"] = os.fspath(model)
        resolve_settings({name: fields[name] for name in fields if name in CALL_NAMES}, self._field_default)
        check_flag("streaming", fields.get("streaming", False))
        engine = fields.get("engine", AUTO_ENGINE)
        if isinstance(engine, str):
            check_engine_name(engine)
            _check_remote(fields, is_remote=engine == REMOTE_ENGINE)
        elif not isinstance(engine, Engine):
            msg = f"`engine={brief(engine)}` is not an engine. Use a name or an object with Engine's methods."
            raise OptionError(msg)
        else:
            _check_remote(fields, is_remote=False)
            fields.setdefault("model", engine.name)
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise _build_option_error(error) from None

    @property
    def is_remote(self) -> bool:
        """Whether a server answers, and no engine of this process."""
        return self.engine == REMOTE_ENGINE

    def loaded_engine(self, model: str | None = None) -> Engine:
        """Return the engine, with the weights loaded.

        Args:
            model: Another model than this one's, as a call may name it.

        Raises:
            ModelError: The weights cannot be loaded.
            OptionError: Another model is named, and the engine is an object, which runs one model; or a server answers.
        """
        if self.is_remote:
            msg = (
                f"The model runs at {self.base_url}, and this process has no engine of it. Do this where it runs, or "
                "use another `engine`."
            )
            raise OptionError(msg)
        if isinstance(self.engine, str):
            return get_engine(self.engine, model or self.model, self.model_kwargs, self.engine_kwargs)
        if model not in (None, self.model):
            msg = f"`model={model!r}` is another model than `{self.model}`, the only one that this engine runs."
            raise OptionError(msg)
        return self.engine

    def clear_prefix_cache(self) -> None:
        """Forget the prompts and answers of earlier calls of this model, whoever made them, and free their memory.

        Later calls run their prompts anew. Do this after changing weights in a way that autograd cannot see.
        """
        engine = self.loaded_engine() if self.is_remote else self.engine
        if isinstance(engine, str):
            loaded = find_engine(engine, self.model, self.model_kwargs, self.engine_kwargs)
            if loaded is None:
                return
            engine = loaded
        engine.clear_prefix_cache()

    @classmethod
    def _field_default(cls, name: str) -> Any:
        return cls.model_fields[name].get_default(call_default_factory=True)

    @property
    def _llm_type(self) -> str:
        return "langnorm"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop if isinstance(stop, list) else None, **kwargs)
        params["ls_provider"] = "langnorm"
        model = kwargs.get("model", self.model)  # not yet checked
        params["ls_model_name"] = model if isinstance(model, str) else brief(model)
        return params

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that changes an answer: two models with different keys never share a cached one."""
        names = (
            "model_kwargs",
            "engine_kwargs",
            "base_url",
            *(name for name in CALL_NAMES if name not in ("timeout", "max_retries", "max_batch_size")),
        )
        engine = self.engine if isinstance(self.engine, str) else repr(self.engine)
        with suppress(LangNormError):  # there is no such model, and no answer
            engine = choose_engine(engine, self.model, self.model_kwargs)
        # LangChain overwrites `stop` with the call's, so the constructor's needs a name of its own.
        return {"engine": engine, "default_stop": self.stop} | {name: getattr(self, name) for name in names}

    def _settings(self, options: Mapping[str, Any]) -> CallSettings:
        """Return the fields, overridden by the options of a call."""
        return resolve_settings(options, lambda name: getattr(self, name))


def _check_remote(fields: dict[str, Any], *, is_remote: bool) -> None:
    """Check what only a server has, and set its defaults.

    Raises:
        OptionError: The address is missing, none, or there is no server.
    """
    if is_remote:
        fields["base_url"] = read_base_url(fields.get("base_url"))
        fields.setdefault("model", AUTO_MODEL)
        fields.setdefault("max_retries", _REMOTE_RETRIES)
        for name in ("model_kwargs", "engine_kwargs"):
            if fields.get(name):
                msg = f"`{name}` is for an engine of this process; here a server loads it. Leave it out."
                raise OptionError(msg)
    elif fields.get("base_url") is not None:
        msg = '`base_url` is for a server. Add `engine="remote"`, or leave `base_url` out.'
        raise OptionError(msg)


def _build_option_error(error: ValidationError) -> OptionError:
    """Return the first of pydantic's complaints as one of ours."""
    first = error.errors()[0]
    original = first.get("ctx", {}).get("error")
    if isinstance(original, OptionError):
        return original
    name = ".".join(map(str, first["loc"]))
    # What is no dict of arguments, or no text, may still have a token in it.
    is_secret = first["loc"][0] in ("api_key", "engine_kwargs", "model_kwargs")
    given = f"a value of the type {type(first['input']).__name__}" if is_secret else brief(first["input"])
    return OptionError(f"`{name}={given}` is not allowed. {first['msg']}.")

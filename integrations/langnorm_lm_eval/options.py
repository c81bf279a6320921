"""The arguments of the model: what `--model_args`, `--device` and the batch sizes say, checked before weights load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langnorm.checks import check_flag, check_integer, refuse
from langnorm.errors import OptionError, closest

CHAT_NAMES = (
    "engine",
    "engine_kwargs",
    "layers",
    "model",
    "model_kwargs",
    "norm_profile",
    "recursion",
    "selection",
    "step_splitter",
    "steering",
    "suppression",
    "threshold",
    "timeout",
)
"""Fields of `ChatLangNorm` that may be set."""

LOADER_NAMES = (
    "attn_implementation",
    "chat_template",
    "device_map",
    "dtype",
    "gguf_cache",
    "gguf_file",
    "layers_path",
    "packed_weights",
    "revision",
    "subfolder",
    "trust_remote_code",
)
"""Entries of `model_kwargs` that may be set by themselves, as with the harness' own models. A token for the hub is not
among them: the harness prints and stores these arguments. The hub's client reads `HF_TOKEN` from the environment."""

HARNESS_NAMES = (
    "add_bos_token",
    "batch_size",
    "chat_template_args",
    "enable_thinking",
    "max_batch_size",
    "max_gen_toks",
    "max_length",
    "prefix_token_id",
    "seed",
    "think_end_token",
)
"""Options of the harness' own models that hold here as well, and the seed of sampled answers."""

_OTHER_NAMES = {"pretrained": "model", "profile": "norm_profile"}
"""Other names of arguments, and what they set."""

_OPTIONS = ("recursion", "steering", "suppression", "selection")
"""Fields that take options of their own: `true` means all of their defaults."""

_SAMPLING_NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop", "n", "max_tokens")
"""What the harness asks for with every request, by its task or by `--gen_kwargs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessOptions:
    """What is not the chat model's.

    Attributes:
        batch_size: Most sequences in one forward pass, or `"auto"` for `max_batch_size`; what does not fit into memory
            is then run in smaller batches.
        max_batch_size: That number, or None for 16.
        max_length: Most tokens of prompt and answer together; None takes the model's context.
        max_gen_toks: Most tokens of an answer whose task names no number.
        prefix_token_id: What stands before texts that are scored from their first token on; None takes the tokenizer's
            beginning of a text, or else its end.
        add_bos_token: Whether texts begin with the tokenizer's special tokens; None leaves that to the tokenizer.
        think_end_token: What ends the reasoning, as text or token id. Only what follows is the answer.
        enable_thinking: Passed to the chat template if it is not None. True cuts the reasoning from the answer, at
            `think_end_token` or else where langnorm finds its end.
        chat_template_args: Further arguments of the chat template.
        seed: Of sampled answers; None takes the harness' own for torch.

    Raises:
        OptionError: A value is not allowed.
    """

    batch_size: int | str = 1
    max_batch_size: int | None = None
    max_length: int | None = None
    max_gen_toks: int = 256
    prefix_token_id: int | None = None
    add_bos_token: bool | None = None
    think_end_token: str | int | None = None
    enable_thinking: bool | None = None
    chat_template_args: Mapping[str, Any] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.batch_size, str):
            is_auto = self.batch_size.split(":")[0] == "auto"
            object.__setattr__(self, "batch_size", "auto" if is_auto else _as_number("batch_size", self.batch_size))
        if self.batch_size != "auto":
            check_integer("batch_size", self.batch_size, low=1, allowed='1 or above, or "auto"')
        for name, low in (("max_batch_size", 1), ("max_length", 2), ("prefix_token_id", 0)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), low=low, allowed=f"{low} or above, or None")
        check_integer("max_gen_toks", self.max_gen_toks, low=1, allowed="1 or above")
        for name in ("add_bos_token", "enable_thinking"):
            if getattr(self, name) is not None:
                check_flag(name, getattr(self, name))
        if isinstance(self.think_end_token, str) and self.think_end_token.isdigit():
            object.__setattr__(self, "think_end_token", int(self.think_end_token))
        if isinstance(self.think_end_token, bool) or not isinstance(self.think_end_token, str | int | None):
            refuse("think_end_token", self.think_end_token, "a text, a token id, or None")
        if self.chat_template_args is not None and not isinstance(self.chat_template_args, Mapping):
            refuse("chat_template_args", self.chat_template_args, "a dict of arguments, or None")
        if self.seed is not None:
            check_integer("seed", self.seed, allowed="an integer, or None")

    @property
    def most_sequences(self) -> int:
        """Most sequences in one forward pass."""
        return self.batch_size if isinstance(self.batch_size, int) else self.max_batch_size or 16

    @property
    def cuts_reasoning(self) -> bool:
        """Whether the reasoning is no part of the answer."""
        return bool(self.enable_thinking) or self.think_end_token is not None


def read_model_args(model_args: Mapping[str, Any]) -> tuple[dict[str, Any], HarnessOptions]:
    """Return the fields of the chat model and the other options that the arguments of the model mean.

    Args:
        model_args: By name. `recursion.max_extra` is the option `max_extra` of `recursion`; texts in braces and
            brackets are read as JSON.

    Raises:
        OptionError: A name is unknown, or given twice, or is not set here; or a value is not allowed.
    """
    fields: dict[str, Any] = {}
    loader: dict[str, Any] = {}
    harness: dict[str, Any] = {}
    arguments = _nested(model_args)
    device = arguments.pop("device", None)
    for name, value in arguments.items():
        own_name = _OTHER_NAMES.get(name, name)
        _check_name(name, own_name)
        group = next(
            group
            for group, names in ((fields, CHAT_NAMES), (loader, LOADER_NAMES), (harness, HARNESS_NAMES))
            if own_name in names
        )
        if own_name in group:
            msg = f"`{name}` and `{own_name}` are two names of one argument. Give one of them."
            raise OptionError(msg)
        if own_name in _OPTIONS and isinstance(value, bool):
            value = {} if value else None
        group[own_name] = value
    if loader:
        given = fields.get("model_kwargs", {})
        if not isinstance(given, Mapping) or (twice := sorted(given.keys() & loader.keys())):
            what = f"`{twice[0]}` is given twice, by itself and" if isinstance(given, Mapping) else "No dict is given"
            msg = f"{what} as `model_kwargs`. Write `model_kwargs.NAME=VALUE` or `NAME=VALUE`, each name once."
            raise OptionError(msg)
        fields["model_kwargs"] = {**given, **loader}
    if device is not None and _is_for_device(fields, device):
        fields["model_kwargs"] = {"device_map": device, **fields.get("model_kwargs", {})}
    return fields, HarnessOptions(**harness)


def _is_for_device(fields: Mapping[str, Any], device: Any) -> bool:
    """Return whether `device` counts: the harness says `cuda:0` of itself, whatever the machine and the engine are."""
    if fields.get("engine", "auto") not in ("auto", "transformers"):
        return False
    if not str(device).startswith("cuda"):
        return True
    import torch

    return torch.cuda.is_available()


def _check_name(name: str, own_name: str) -> None:
    """Raise `OptionError` unless there is an argument of this name."""
    if own_name in _SAMPLING_NAMES:
        option = {"max_tokens": "max_gen_toks", "stop": "until"}.get(name, name)
        mend = "Several samples are asked for by `selection.n`." if name == "n" else f"Use `--gen_kwargs {option}=...`."
        msg = f"`{name}` is not an argument of the model: tasks say how answers are generated. {mend}"
        raise OptionError(msg)
    allowed = (*CHAT_NAMES, *LOADER_NAMES, *HARNESS_NAMES, *_OTHER_NAMES, "device")
    if own_name not in allowed:
        hint = closest(name, allowed) or f" Use one of: {', '.join(sorted(allowed))}."
        msg = f"The model has no argument `{name}`.{hint}"
        raise OptionError(msg)


def _nested(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with those of one option together: `{"recursion.alpha": 1}` as `{"recursion": {"alpha": 1}}`."""
    nested: dict[str, Any] = {}
    for name, value in model_args.items():
        outer, *inner = name.split(".")
        content = _read_value(name, value)
        for part in reversed(inner):
            content = {part: content}
        nested[outer] = _joined(outer, nested[outer], content) if outer in nested else content
    return nested


def _joined(name: str, one: Any, other: Any) -> Any:
    """Return two dicts of an option as one.

    Raises:
        OptionError: One of them is no dict, or both say the same.
    """
    one = {} if one is True else one  # `recursion=true,recursion.alpha=0.5`
    other = {} if other is True else other
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        msg = f"`{name}` is given twice, or as a whole and by its options. Give each once, as `{name}.OPTION=VALUE`."
        raise OptionError(msg)
    result = dict(one)
    for key, value in other.items():
        result[key] = _joined(f"{name}.{key}", result[key], value) if key in result else value
    return result


def _read_value(name: str, value: Any) -> Any:
    """Return what a text means: JSON in braces or brackets, or the file of a chat template; anything else as it is."""
    if not isinstance(value, str):
        return value
    if name.split(".")[-1] == "chat_template":
        return value if "{" in value else Path(value)
    if not value.startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        msg = f"`{name}={value}` is not JSON: {error}. Put texts in double quotes, or give `{name}.OPTION=VALUE`."
        raise OptionError(msg) from None


def _as_number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        refuse(name, value, 'a number, or "auto"')

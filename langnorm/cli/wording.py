"""Errors of the library in the words of the command line: its options in place of Python's arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping

_OPTIONS: Mapping[str, str] = {
    "chat_template": "--chat-template",
    "device_map": "--device",
    "dtype": "--dtype",
    "engine": "--engine",
    "grace": "--grace",
    "gguf_file": "--gguf",
    "host": "--host",
    "layers": "--layers",
    "max_batch_size": "--batch-size",
    "max_tokens": "--max-tokens",
    "model": "--model",
    "norms": "--norms",
    "norm_profile": "--profile",
    "num_steps": "--steps",
    "num_tokens": "--num-tokens",
    "port": "--port",
    "profile": "--profile",
    "quantiles": "--quantiles",
    "seed": "--seed",
    "seeds": "--seeds",
    "step_splitter": "--step-splitter",
    "tasks": "--tasks",
    "timeout": "--timeout",
    "temperature": "--temperature",
}

_LOADER_ARGUMENT = re.compile(r'`model_kwargs=\{"(\w+)": ([^`{}]*)\}`')
_ARGUMENT = re.compile(r"`(\w+)=([^`=]*)`( of `model_kwargs`)?")
_NAME = re.compile(r"`(device_map|gguf_file)`")
_NO_SELECTION = "`selection=None`"
_FILES = ("chat_template", "norm_profile", "profile")


def in_options(text: str) -> str:
    """Return an error's text with the options of the command line for the arguments that stand for them."""

    def option(match: re.Match[str]) -> str:
        name, value = match[1], match[2].strip("'\"")
        if name not in _OPTIONS:
            return match[0]
        return f"`{_OPTIONS[name]} {'FILE' if name in _FILES and value == '...' else value}`"

    text = _LOADER_ARGUMENT.sub(option, text).replace(_NO_SELECTION, "`--best-of 1`")
    text = _ARGUMENT.sub(option, text)
    return _NAME.sub(lambda match: f"`{_OPTIONS[match[1]]}`", text)

"""Errors of the library in the words of the command line: its options in place of Python's arguments."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from langnorm.cli.options import NO_SCORE

_OPTIONS: Mapping[str, str] = {
    "action": "--action",
    "api_key": "--api-key",
    "architecture": "--architecture",
    "chat_template": "--chat-template",
    "combine": "--combine",
    "controls": "--controls",
    "device_map": "--device",
    "dtype": "--dtype",
    "engine": "--engine",
    "expansion": "--expansion",
    "factor": "--factor",
    "gguf_file": "--gguf",
    "grace": "--grace",
    "host": "--host",
    "intensity": "--intensity",
    "k": "--k",
    "l1": "--l1",
    "layers": "--layers",
    "max_batch_size": "--batch-size",
    "max_body_bytes": "--max-body-bytes",
    "max_requests": "--max-requests",
    "max_samples": "--max-samples",
    "max_tokens": "--max-tokens",
    "methods": "--methods",
    "model": "--model",
    "n": "--select",
    "name": "--name",
    "norm_profile": "--profile",
    "norms": "--norms",
    "num_problems": "--num-problems",
    "num_steps": "--steps",
    "num_tokens": "--num-tokens",
    "port": "--port",
    "profile": "--profile",
    "quantiles": "--quantiles",
    "score": "--score",
    "seed": "--seed",
    "seeds": "--seeds",
    "step_splitter": "--step-splitter",
    "stop": "--stop",
    "task": "--task",
    "tasks": "--tasks",
    "temperature": "--temperature",
    "template": "--template",
    "timeout": "--timeout",
    "vote": "--vote",
}
"""The option of each argument that an error may name; the tests hold it beside the options of all commands."""

_LOADER_ARGUMENT = re.compile(r'`model_kwargs=\{"(\w+)": ([^`{}]*)\}`')
_ARGUMENT = re.compile(r"`(\w+)=([^`=]*)`( of `(model_kwargs|selection)`)?")
_NAME = re.compile(f"`({'|'.join(name for name in _OPTIONS if '_' in name)})`")  # no word of plain English has one
_ENGINE_ENTRY = re.compile(r'`engine_kwargs=\{"(\w+)": ([^`{}]*)\}`')
_ENGINE_ARGUMENT = re.compile(r"`(\w+=[^`]*)` of `engine_kwargs`")
_NO_SELECTION = "`selection=None`"
_FUNCTIONS = " or a function of a Sample"  # which a command line has no way to give
_OF_PROCESS = "Calibrate it again with these `layers`, or use `profile=None` for what this process has seen, or"
_LOADER_INSTEAD = "Use `model_kwargs`, which goes to `from_pretrained`."  # nor this
_FILES = ("chat_template", "norm_profile", "profile")


def in_options(text: str, known: Collection[str] | None = None) -> str:
    """Return an error's text with the options of the command line for the arguments that stand for them.

    Args:
        text: Of the error.
        known: The options of the command, so that no other one is named: its arguments stay as they are. None for all.
    """
    options = {name: option for name, option in _OPTIONS.items() if known is None or option in known}

    def option(match: re.Match[str]) -> str:
        name, value = match[1], match[2].strip("'\"") or match[2]
        if name not in options:
            return match[0]
        value = NO_SCORE if name == "score" and value == "None" else value
        return f"`{options[name]} {'FILE' if name in _FILES and value == '...' else value}`"

    text = _ENGINE_ENTRY.sub(lambda match: f"`--engine-option {match[1]}={_as_json(match[2])}`", text)
    text = _ENGINE_ARGUMENT.sub(r"`--engine-option \1`", text).replace(_LOADER_INSTEAD, "Leave it out.")
    text = text.replace("`engine_kwargs`", "`--engine-option`")
    text = _LOADER_ARGUMENT.sub(option, text).replace(_FUNCTIONS, "").replace(_OF_PROCESS, 'Use `layers="late"`, or')
    if "n" in options:
        text = text.replace(_NO_SELECTION, "`--select 1`")
    text = _ARGUMENT.sub(option, text)
    return _NAME.sub(lambda match: f"`{options.get(match[1], match[1])}`", text)


def _as_json(value: str) -> str:
    """Return a value of Python, as an error shows it, as `--engine-option` reads it."""
    return {"True": "true", "False": "false", "None": "null"}.get(value, value.strip("'\""))

"""Reads the prompts that a calibration asks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator

from langnorm.errors import OptionError
from langnorm.stored import Stored, StoredForm, read_text


class _Message(Stored):
    """A message, with whatever else it has."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "human", "assistant", "ai", "tool"]
    content: str | list[str | dict[str, JsonValue]]


class _Prompt(Stored):
    """A line of a file of prompts: the prompt itself, or a dict that has it."""

    prompt: Annotated[str | list[_Message], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _of_any_form(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = value.get("prompt", value.get("messages"))
        return {"prompt": value}


_PROMPT = StoredForm(
    _Prompt,
    "a prompt",
    "Give a text, a list of messages with `role` and `content`, or a dict with `prompt` or `messages`.",
)


def read_prompts(path: Path) -> list[Any]:
    """Return the prompts of a file: a text a line, or, in a file called `*.jsonl`, a JSON value a line.

    Such a value is a text, a list of messages as dicts of `role` and `content`, or a dict with one of these under
    `prompt` or `messages`.

    Raises:
        OptionError: The file cannot be read, is empty, or a line is none of these.
    """
    # Not `splitlines`: a text in JSON may have other characters that end lines.
    text = read_text(path, "Give a text file with one prompt a line.")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        msg = f"The file `{path}` has no prompts. Give one with a prompt a line."
        raise OptionError(msg)
    if path.suffix != ".jsonl":
        return [line for _, line in lines]
    parsed = (_PROMPT.parse(line, f"Line {number} of `{path}`") for number, line in lines)
    return [prompt.model_dump()["prompt"] for prompt in parsed]

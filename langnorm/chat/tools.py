"""What a call says of tools and of the form of its answer, in the shapes that LangChain and OpenAI know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool

from langnorm.errors import OptionError, closest

_CHOICES = {"auto": "auto", "none": "none", "any": "any", "required": "any", True: "any", False: "none", None: "auto"}
_SCHEMA_KEYS = {"properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"}
_JSON_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of a call.

    Attributes:
        tools: In OpenAI's form; none where the model must not call any.
        must_call: Whether the answer has to be a call.
        name: The one tool that has to be called, or None.
        is_parallel: Whether an answer may have several calls.
    """

    tools: tuple[dict[str, Any], ...] = ()
    must_call: bool = False
    name: str | None = None
    is_parallel: bool = True

    @property
    def offered(self) -> tuple[dict[str, Any], ...]:
        """The functions that may be called, as name, description and parameters."""
        functions = tuple(tool["function"] for tool in self.tools)
        return tuple(f for f in functions if self.name in (None, f["name"]))


def convert_tools(tools: Sequence[Any], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Return tools in OpenAI's form.

    Args:
        tools: Tools of LangChain, functions, pydantic classes, TypedDicts, or dicts in OpenAI's or Anthropic's form.
        strict: Whether arguments must follow the schema to the letter; None leaves it open.

    Raises:
        OptionError: One of them is nothing that can be a tool.
    """
    if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
        msg = f"`tools={tools!r}` is not allowed. Give a list of tools."
        raise OptionError(msg)
    found = []
    for tool in tools:
        try:
            converted = convert_to_openai_tool(tool, strict=strict)
            converted["function"]["name"]
        except (ValueError, TypeError, KeyError) as error:
            msg = (
                f"`{tool!r}` cannot be a tool ({error}). Use a function with type hints and a docstring, a tool of "
                "LangChain, a pydantic class, or a dict in OpenAI's form."
            )
            raise OptionError(msg) from error
        found.append(converted)
    return found


def resolve_tool_use(tools: Any, choice: Any, *, is_parallel: bool | None) -> ToolUse:
    """Return what `tools`, `tool_choice` and `parallel_tool_calls` of a call mean together.

    Raises:
        OptionError: A tool is none, or the choice names none of them.
    """
    converted = tuple(convert_tools(tools or ()))
    names = [tool["function"]["name"] for tool in converted]
    if is_parallel not in (None, True, False):
        msg = f"`parallel_tool_calls={is_parallel!r}` is not allowed. Use True or False."
        raise OptionError(msg)
    wanted = _choice(choice)
    if wanted == "none":
        return ToolUse()
    if wanted in ("any", "auto") and wanted not in names:
        if wanted == "any" and not names:
            msg = f"`tool_choice={choice!r}` asks for a call, and there are no tools. Give `tools`."
            raise OptionError(msg)
        return ToolUse(converted, wanted == "any", None, is_parallel is not False)
    if wanted not in names:
        allowed = ", ".join(f"`{name}`" for name in names) or "none"
        hint = closest(wanted, names)
        msg = (
            f"`tool_choice={choice!r}` names no tool of this call; they are {allowed}. Use a name, "
            f'"auto", "any" or "none".{hint}'
        )
        raise OptionError(msg)
    return ToolUse(converted, must_call=True, name=wanted, is_parallel=False)


def _choice(choice: Any) -> str:
    """Return the name of a tool, or `"auto"`, `"any"` or `"none"`."""
    # OpenAI's {"type": "function", "function": {"name": ..}}, Anthropic's {"type": "tool", "name": ..}
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
        return str(name) if name else _CHOICES.get(choice.get("type"), str(dict(choice)))
    if choice is None or isinstance(choice, str | bool):
        return _CHOICES.get(choice, str(choice))
    msg = f'`tool_choice={choice!r}` is not allowed. Use the name of a tool, "auto", "any" or "none".'
    raise OptionError(msg)


def resolve_schema(response_format: Any) -> dict[str, Any] | None:
    """Return the JSON schema that an answer has to follow, or None where it may be any text.

    Args:
        response_format: OpenAI's `{"type": "text" | "json_object" | "json_schema", ..}`, a JSON schema, or a class that
            LangChain can make one of.

    Raises:
        OptionError: It is something else.
    """
    if response_format is None:
        return None
    if not isinstance(response_format, Mapping):
        try:
            return dict(convert_to_json_schema(response_format))
        except (ValueError, TypeError) as error:
            raise OptionError(_bad_format(response_format)) from error
    match response_format.get("type"):
        case "text":
            return None
        case "json_object":
            schema = response_format.get("schema", {"type": "object"})
        case "json_schema":
            inner = response_format.get("json_schema", response_format)
            schema = inner.get("schema") if isinstance(inner, Mapping) else None
        case None:
            schema = response_format if _SCHEMA_KEYS & set(response_format) else None
        case kind:
            schema = response_format if isinstance(kind, list) or kind in _JSON_TYPES else None
    if not isinstance(schema, Mapping):
        raise OptionError(_bad_format(response_format))
    return dict(schema)


def _bad_format(response_format: Any) -> str:
    return (
        f'`response_format={response_format!r}` is not allowed. Use {{"type": "json_schema", "json_schema": '
        '{"name": .., "schema": ..}}, {"type": "json_object"}, a JSON schema, or None.'
    )

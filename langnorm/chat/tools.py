"""Reads the options `tools`, `tool_choice`, `parallel_tool_calls` and `response_format` of a call.

Each may be written as LangChain, OpenAI or Anthropic write it; past this module there is one form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from langchain_core.utils.function_calling import convert_to_openai_tool

from langnorm.chat.conversion import SCHEMA_KEYWORDS, as_function, json_schema_of
from langnorm.chat.schemas import plain_copy
from langnorm.checks import brief, check_flag, refuse
from langnorm.errors import OptionError, closest

_CHOICES = {"auto": "auto", "none": "none", "any": "any", "required": "any"}
_JSON_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of a call.

    Attributes:
        tools: In OpenAI's form; empty where the model must not call any.
        must_call: Whether the answer has to be a call.
        name: The one tool that has to be called, or None.
        is_parallel: Whether an answer that is held to a grammar may have several calls.
    """

    tools: tuple[dict[str, Any], ...] = ()
    must_call: bool = False
    name: str | None = None
    is_parallel: bool = False

    @property
    def offered(self) -> tuple[dict[str, Any], ...]:
        """The functions that may be called, as name, description and parameters."""
        functions = tuple(tool["function"] for tool in self.tools)
        return tuple(f for f in functions if self.name in (None, f["name"]))


def check_strict(strict: Any) -> None:
    """Raise `OptionError` unless `strict` is True, False or None."""
    if strict is not None:
        check_flag("strict", strict)


def convert_tools(tools: Sequence[Any], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Return tools in OpenAI's form.

    Args:
        tools: Tools of LangChain, functions, pydantic classes, TypedDicts, or dicts in OpenAI's or Anthropic's form.
        strict: Whether arguments must follow the schema to the letter; None leaves it open.

    Returns:
        Dicts with `"type": "function"` and a `"function"` that has a `"name"` and, where the tool takes arguments,
        their JSON schema as `"parameters"`.

    Raises:
        OptionError: `tools` is not a list, an item of it cannot be a tool, or `strict` is no flag.
    """
    check_strict(strict)
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Sequence):
        msg = f"`tools={brief(tools)}` is not allowed. Give a list of tools."
        raise OptionError(msg)
    return [_convert_tool(tool, strict=strict) for tool in tools]


def _convert_tool(tool: Any, *, strict: bool | None) -> dict[str, Any]:
    tool = plain_copy(tool, "This tool") if isinstance(tool, Mapping) else tool
    try:
        converted: dict[str, Any] = convert_to_openai_tool(as_function(tool), strict=strict)
        name, parameters = converted["function"]["name"], converted["function"].get("parameters")
    except Exception as error:  # what LangChain stumbles over in it, and what the user's own code raises
        raise OptionError(_bad_tool(tool, " ".join(str(error).split()))) from error
    if not isinstance(name, str) or not name:
        raise OptionError(_bad_tool(tool, f"its name is `{brief(name)}`"))
    if not isinstance(parameters, Mapping | None):
        raise OptionError(_bad_tool(tool, f"its parameters are `{brief(parameters)}` and not a JSON schema"))
    kinds = (parameters or {}).get("type", "object")
    if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds):
        reason = f"its parameters are of type `{brief(kinds)}`, and arguments have names: `object`"
        raise OptionError(_bad_tool(tool, reason))
    copied: dict[str, Any] = plain_copy(converted, f"The tool `{name}`")
    return copied


def _bad_tool(tool: Any, reason: str) -> str:
    return (
        f"`{brief(tool)}` cannot be a tool ({reason}). Use a function with type hints and a docstring, a tool of "
        "LangChain, a pydantic class, or a dict in OpenAI's form."
    )


def resolve_tool_use(tools: Any, choice: Any, *, is_parallel: bool | None) -> ToolUse:
    """Return what `tools`, `tool_choice` and `parallel_tool_calls` of a call mean together.

    Args:
        tools: As for `convert_tools`, or None.
        choice: The name of the tool that must be called; `"any"`, `"required"` or True where one of them must be;
            `"none"` or False where none may be; `"auto"` or None where the model decides. Or OpenAI's or Anthropic's
            dict for one of these. A tool that is called `"auto"` or the like goes first.
        is_parallel: Whether an answer that must be a call, or follow a schema, may have several calls; None means one.
            Models that must call go on calling where they may; an answer in which nothing is held to a grammar may have
            several whatever this says.

    Raises:
        OptionError: An item cannot be a tool, the choice names no tool of these, or a value has another type.
    """
    converted = tuple(convert_tools(() if tools is None else tools))
    names = [tool["function"]["name"] for tool in converted]
    if not isinstance(is_parallel, bool | None):
        refuse("parallel_tool_calls", is_parallel, "True, False or None")
    wanted = _read_choice(choice)
    if wanted == "none":
        return ToolUse()
    if wanted in ("any", "auto") and wanted not in names:
        if wanted == "any" and not names:
            msg = f"`tool_choice={brief(choice)}` asks for a call, and there are no tools. Give `tools`."
            raise OptionError(msg)
        return ToolUse(converted, wanted == "any", None, is_parallel is True)
    if wanted not in names:
        offered = f"they are {', '.join(f'`{name}`' for name in names)}" if names else "it has no tools"
        msg = (
            f"`tool_choice={brief(choice)}` names no tool of this call; {offered}. Use a name, "
            f'"auto", "any" or "none".{closest(wanted, names)}'
        )
        raise OptionError(msg)
    return ToolUse(converted, must_call=True, name=wanted, is_parallel=False)


def _read_choice(choice: Any) -> str:
    """Return the name of a tool, or `"auto"`, `"any"` or `"none"`."""
    wanted = choice
    if isinstance(choice, Mapping):
        # OpenAI's {"type": "function", "function": {"name": ..}}, Anthropic's {"type": "tool", "name": ..}
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
        kind = choice.get("type")
        wanted = name or (kind if isinstance(kind, str) and kind in _CHOICES else ...)
    if wanted is None:
        return "auto"
    if isinstance(wanted, bool):
        return "any" if wanted else "none"
    if not isinstance(wanted, str) or not wanted:
        refuse("tool_choice", choice, 'the name of a tool, "auto", "any" or "none"')
    return _CHOICES.get(wanted, wanted)


def resolve_schema(response_format: Any) -> dict[str, Any] | None:
    """Return the JSON schema that an answer has to follow, or None where it may be any text.

    Only the outer form is checked here; what a schema has inside is checked when a grammar is made of it.

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
            return json_schema_of(response_format)
        except OptionError:
            raise
        except Exception as error:  # noqa: BLE001 (what LangChain stumbles over in it)
            _refuse_format(response_format, error)
    if not isinstance(kind := response_format.get("type"), str | list | None):
        _refuse_format(response_format)
    match kind:
        case "text":
            return None
        case "json_object":
            schema = response_format.get("schema", {"type": "object"})
        case "json_schema":
            inner = response_format.get("json_schema", response_format)
            schema = inner.get("schema") if isinstance(inner, Mapping) else None
        case None:
            schema = response_format if SCHEMA_KEYWORDS & (set(response_format) - {"type"}) else None
        case _:
            schema = response_format if _is_json_type(kind) else None
    if not isinstance(schema, Mapping):
        _refuse_format(response_format)
    copied: dict[str, Any] = plain_copy(schema)
    return copied


def _is_json_type(kind: Any) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return bool(kinds) and all(isinstance(kind, str) and kind in _JSON_TYPES for kind in kinds)


def _refuse_format(response_format: Any, error: Exception | None = None) -> NoReturn:
    msg = (
        f'`response_format={brief(response_format)}` is not allowed. Use {{"type": "json_schema", "json_schema": '
        '{"name": .., "schema": ..}}, {"type": "json_object"}, a JSON schema, or None.'
    )
    raise OptionError(msg) from error

"""Whatever users write a schema as, as a JSON schema, with nothing of it lost."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

from langchain_core.tools import BaseTool, create_schema_from_function
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import TypeAdapter

from langnorm.chat.schemas import is_recursive, plain_copy, resolve

_FUNCTION_KEYS = {"name", "function", "input_schema", "toolSpec"}  # of dicts that are no JSON schema, but have one

SCHEMA_KEYWORDS = {
    "type",
    "properties",
    "enum",
    "const",
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
    "items",
    "additionalProperties",
}
"""A dict that has none of these is no JSON schema that says anything."""

_BESIDE_REFERENCES = {"$defs", "definitions", "title", "description", "$schema"}  # which add no constraint


def json_schema_of(schema: Any) -> dict[str, Any]:
    """Return a JSON schema as plain data.

    LangChain's own conversion is for functions: it drops what a schema without properties says, and what refers to
    itself. It is used for what it alone knows.

    Args:
        schema: A pydantic class (version 1 or 2), a TypedDict, a JSON schema, or a function in OpenAI's, Anthropic's or
            Bedrock's form.

    Raises:
        ValueError, TypeError: It is something else. As an `OptionError` where it has something that JSON lacks.
    """
    converted: Any = schema
    if isinstance(schema, Mapping):
        converted = plain_copy(schema)
        if _FUNCTION_KEYS & set(converted):
            converted = _convert(converted)
        elif not SCHEMA_KEYWORDS & set(converted):
            msg = f"it has none of {', '.join(f'`{name}`' for name in sorted(SCHEMA_KEYWORDS))}"
            raise ValueError(msg)
        converted = _at_top(converted)
        if "properties" in converted:  # which makes it an object's, as function calling understands it
            converted.setdefault("type", "object")
    elif is_pydantic_class(schema):
        converted = _schema_of_class(schema)
    else:
        converted = _convert(schema)
    copied: dict[str, Any] = plain_copy(converted)
    return copied


def _convert(schema: Any) -> dict[str, Any]:
    try:
        return dict(convert_to_json_schema(schema))
    except RecursionError:  # a TypedDict that refers to itself
        return _at_top(TypeAdapter(schema).json_schema())
    except (KeyError, AttributeError) as error:
        msg = f"it cannot be read: {error}"
        raise ValueError(msg) from error


def is_pydantic_class(value: Any) -> bool:
    """Return whether a value is a class of pydantic, version 1 or 2."""
    return isinstance(value, type) and is_basemodel_subclass(value)


def _schema_of_class(model: Any) -> dict[str, Any]:
    return _at_top(model.model_json_schema() if hasattr(model, "model_json_schema") else model.schema())


def _at_top(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that says at its top what it otherwise refers to: there, properties and types are looked for."""
    rest = {key: value for key, value in schema.items() if key != "$ref"}
    target = resolve(schema, schema["$ref"]) if isinstance(schema.get("$ref"), str) else None
    if not isinstance(target, dict) or "$ref" in target or set(rest) - _BESIDE_REFERENCES:
        return schema
    return target | rest


def as_function(tool: Any) -> Any:
    """Return a tool in a form that LangChain converts without loss."""
    if isinstance(tool, dict):
        is_schema = "title" in tool and not _FUNCTION_KEYS & set(tool)
        return function_of(_at_top(tool), tool["title"]) if is_schema else tool
    schema, name, described = _arguments_of(tool)
    return function_of(schema | described, name) if is_recursive(schema) else tool


def _arguments_of(tool: Any) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Return the schema of a tool's arguments, its name, and its description where the schema has not the right one.

    Of what is no tool that has such a schema, it is empty.
    """
    if isinstance(tool, BaseTool):
        model: Any = tool.tool_call_schema
        schema = _at_top(plain_copy(model)) if isinstance(model, Mapping) else _schema_of_class(model)
        return schema, tool.name, {"description": tool.description}
    if is_pydantic_class(tool):
        return _schema_of_class(tool), tool.__name__, {}
    if not isinstance(tool, FunctionType | MethodType):
        return {}, "", {}
    model = create_schema_from_function(
        tool.__name__,
        tool,
        filter_args=(),
        parse_docstring=True,
        error_on_invalid_docstring=False,
        include_injected=False,
    )
    return _schema_of_class(model), tool.__name__, {"description": model.__doc__ or ""}


def function_of(schema: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """Return a JSON schema as a function in OpenAI's form."""
    parameters = {key: value for key, value in schema.items() if key not in ("title", "description")}
    described = {"description": schema["description"]} if "description" in schema else {}
    return {"name": name, **described, "parameters": parameters}

"""Structured output: a chat model followed by a parser, in the three methods that LangChain's users know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough

from langnorm.chat.answer_parser import VALUE_KEY, AnswerParser
from langnorm.chat.conversion import function_of, is_pydantic_class, json_schema_of
from langnorm.chat.schemas import check_schema, is_recursive, moved_schema
from langnorm.chat.tools import check_strict, convert_tools
from langnorm.checks import brief, check_choice, check_flag
from langnorm.errors import OptionError

Method = Literal["json_schema", "function_calling", "json_mode"]
METHODS = get_args(Method)

_SET_HERE: Mapping[str, tuple[str, ...]] = {
    "json_schema": ("response_format", "ls_structured_output_format"),
    "function_calling": ("tools", "tool_choice", "ls_structured_output_format"),
    "json_mode": ("response_format", "ls_structured_output_format"),
}
"""Settings of a call that each method has of its own."""


def build_structured_output(
    chat: BaseChatModel,
    schema: Any,
    *,
    method: Method,
    include_raw: bool,
    strict: bool | None,
    settings: dict[str, Any],
) -> Runnable[Any, Any]:
    """Return a chain that answers with an object of `schema`.

    Args:
        chat: The chat model.
        schema: A pydantic class (version 1 or 2), a TypedDict or a JSON schema; `"json_mode"` also takes None, for any
            JSON object.
        method: `"json_schema"` holds the answer to the schema, `"function_calling"` makes the schema a tool that has to
            be called, `"json_mode"` is the first for prompts that describe the schema themselves.
        include_raw: Whether the result has the keys `raw`, `parsed` and `parsing_error`, and no error is raised.
        strict: Accepted as LangChain's other models accept it; the schema is always followed to the letter.
        settings: Further options of the call, which the chat model is bound to.

    Returns:
        A runnable from what the chat model takes to an instance of a pydantic class, or else to plain data that was
        compared with the schema; with `include_raw`, to a dict of the three keys. Its errors, of answers that were cut
        off for example, are LangChain's `OutputParserException`.

    Raises:
        OptionError: The method is unknown or sets one of the settings by itself, a flag is neither True nor False, or
            `schema` cannot be read as a schema or is malformed.
        MissingDependencyError: jsonschema is not installed.
    """
    check_choice("method", method, METHODS)
    check_flag("include_raw", include_raw)
    check_strict(strict)
    if schema is None and method != "json_mode":
        msg = f'`schema=None` is not allowed with `method="{method}"`. Give a pydantic class or a JSON schema.'
        raise OptionError(msg)
    if own := next((name for name in _SET_HERE[method] if name in settings), None):
        msg = f'`{own}` is not allowed here: `method="{method}"` sets it by itself. Leave it out.'
        raise OptionError(msg)
    json_schema = {"type": "object"} if schema is None else _convert_schema(schema)
    check_schema(json_schema)
    function = _function(schema, json_schema)
    traced = {
        "kwargs": {"method": method} | ({} if strict is None else {"strict": strict}),
        "schema": {"type": "function", "function": function},  # which LangChain's tracer takes as it is
    }
    parser = AnswerParser(json_schema=json_schema, model=schema if is_pydantic_class(schema) else None)
    if method == "function_calling":
        function, parser.is_wrapped = _with_named_arguments(function)
        parser.tool = function["name"]
        model = chat.bind_tools([{"type": "function", "function": function}], tool_choice=parser.tool, strict=strict,
                                ls_structured_output_format=traced, **settings)  # fmt: skip
    else:
        model = chat.bind(response_format=_response_format(method, json_schema), ls_structured_output_format=traced,
                          **settings)  # fmt: skip
    if not include_raw:
        return model | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    # The model stands first, so that it gets the settings of a call.
    safely_parsed = parsed.with_fallbacks([failed], exception_key="parsing_error")
    return model | RunnableMap(raw=RunnablePassthrough()) | safely_parsed


def _function(schema: Any, json_schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema as a function in OpenAI's form: a class as it is shown to models elsewhere, where that is all."""
    name = re.sub(r"[^\w-]+", "_", json_schema.get("title", "")).strip("_") or "Answer"
    is_class = schema is not None and not isinstance(schema, Mapping)
    if is_class and json_schema.get("type") == "object" and not is_recursive(json_schema):
        function: dict[str, Any] = convert_tools([schema])[0]["function"]
        return function | {"name": name}
    return function_of(json_schema, name)


def _with_named_arguments(function: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a function whose arguments have names, and whether they had none: what is no object becomes one."""
    parameters = function["parameters"]
    if parameters.get("type") == "object":
        return function, False
    value = moved_schema(parameters, f"/properties/{VALUE_KEY}")
    wrapped = {"type": "object", "properties": {VALUE_KEY: value}, "required": [VALUE_KEY]}
    return function | {"parameters": wrapped}, True


def _convert_schema(schema: Any) -> dict[str, Any]:
    try:
        json_schema = json_schema_of(schema)
    except OptionError:
        raise
    except Exception as error:  # what LangChain stumbles over in it
        reason = " ".join(str(error).split())
        raise OptionError(_bad_schema(schema, reason)) from error
    title = json_schema.get("title", "answer")
    if not isinstance(title, str):
        raise OptionError(_bad_schema(schema, f"its title is `{brief(title)}`"))
    return json_schema


def _bad_schema(schema: Any, reason: str) -> str:
    return f"`{brief(schema)}` is not a schema ({reason}). Give a pydantic class, a TypedDict, or a JSON schema."


def _response_format(method: Method, schema: dict[str, Any]) -> dict[str, Any]:
    if method == "json_mode":
        return {"type": "json_object", "schema": schema}
    return {"type": "json_schema", "json_schema": {"name": schema.get("title", "answer"), "schema": schema}}

"""Structured output: a chat model followed by a parser, in the three methods that LangChain's users know."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import OutputParserLike
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass

from langnorm.chat.tools import convert_tools
from langnorm.checks import brief, check_choice
from langnorm.errors import OptionError

Method = Literal["json_schema", "function_calling", "json_mode"]
METHODS = get_args(Method)


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
        A runnable from what the chat model takes to an instance of a pydantic class, or else a dict; with
        `include_raw`, to a dict of the three keys.

    Raises:
        OptionError: The method is unknown, or `schema` cannot be read as a schema.
    """
    check_choice("method", method, METHODS)
    if schema is None and method != "json_mode":
        msg = f'`schema=None` is not allowed with `method="{method}"`. Give a pydantic class or a JSON schema.'
        raise OptionError(msg)
    if isinstance(schema, Mapping) and not {"title", "name", "function"} & set(schema):
        schema = {"title": "Answer", **schema}  # LangChain insists on one
    json_schema = {"type": "object"} if schema is None else _convert_schema(schema)
    is_pydantic = isinstance(schema, type) and is_basemodel_subclass(schema)
    traced = {"kwargs": {"method": method} | ({} if strict is None else {"strict": strict}), "schema": json_schema}
    parser: OutputParserLike[Any]
    if method == "function_calling":
        name = convert_tools([schema])[0]["function"]["name"]
        model = chat.bind_tools(
            [schema], tool_choice=name, strict=strict, ls_structured_output_format=traced, **settings
        )
        parser = (
            PydanticToolsParser(tools=[schema], first_tool_only=True)
            if is_pydantic
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
    else:
        model = chat.bind(response_format=_response_format(method, json_schema), ls_structured_output_format=traced,
                          **settings)  # fmt: skip
        parser = PydanticOutputParser(pydantic_object=schema) if is_pydantic else JsonOutputParser()
    if not include_raw:
        return model | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _convert_schema(schema: Any) -> dict[str, Any]:
    try:
        json_schema = convert_to_json_schema(schema)
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

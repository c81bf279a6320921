"""Nothing of a schema is lost on its way to the grammar and to the prompt."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.tools import StructuredTool, tool
from pydantic import BaseModel, RootModel
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from langnorm.chat.conversion import json_schema_of
from langnorm.chat.schemas import is_recursive
from langnorm.chat.tools import convert_tools, resolve_schema
from langnorm.errors import OptionError


class Tree(BaseModel):
    """A tree."""

    name: str
    kids: list[Tree] = []


class Forest(BaseModel):
    """Some trees."""

    trees: list[Tree]


class Numbers(RootModel[list[int]]):
    """Some numbers."""


class Node(TypedDict):
    """A node."""

    kids: list[Node]


class Old(BaseModelV1):
    """Of version 1."""

    kids: list[Old] = []


Old.update_forward_refs()


@tool
def plant(tree: Tree) -> str:
    """Plant it."""
    return tree.name


@pytest.mark.parametrize("schema", [Tree, Forest, Node, Old, Tree.model_json_schema()], ids=str)
def test_what_refers_to_itself_does_so_still(schema: Any) -> None:
    """And says at its top that it is an object."""
    converted = json_schema_of(schema)
    assert converted["type"] == "object"
    assert is_recursive(converted)
    assert resolve_schema(schema) == converted or isinstance(schema, dict)


@pytest.mark.parametrize(
    "given",
    [
        Tree,
        Forest,
        plant,
        plant.func,
        StructuredTool(
            name="plant", description="Plant it.", args_schema=plant.tool_call_schema.model_json_schema(), func=print
        ),
        {"title": "Tree", **Tree.model_json_schema()},
    ],
    ids=["class", "list", "tool", "function", "tool of a server", "schema"],
)
def test_tools_keep_arguments_that_refer_to_themselves(given: Any) -> None:
    """LangChain's conversion makes anything of them."""
    (converted,) = convert_tools([given])
    function = converted["function"]
    assert is_recursive(function["parameters"])
    assert function["name"] in ("Tree", "Forest", "plant")
    assert function["description"] in ("A tree.", "Some trees.", "Plant it.") or isinstance(given, dict)


@pytest.mark.parametrize(
    "given",
    [
        Numbers,
        {"title": "f", "type": "array", "items": {"type": "integer"}},
        {"name": "f", "parameters": {"type": "string"}},
        {"name": "f", "input_schema": {"type": ["array", "null"]}},
        {"type": "function", "function": {"name": "f", "parameters": {"type": "integer"}}},
    ],
    ids=str,
)
def test_arguments_that_have_no_names_are_refused(given: Any) -> None:
    """A call can never have them."""
    with pytest.raises(OptionError, match="cannot be a tool .*arguments have names: `object`"):
        convert_tools([given])


@pytest.mark.parametrize(
    "given",
    [
        {"name": "f\ud800", "parameters": {}},
        {"name": "f", "description": "\udc00", "parameters": {}},
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {"\udfff": {}}}}},
    ],
    ids=ascii,
)
def test_text_that_is_no_unicode_is_refused_in_tools(given: Any) -> None:
    """With its place: no prompt can be made of it."""
    with pytest.raises(OptionError, match="This tool cannot be written as JSON: .*half of a surrogate pair"):
        convert_tools([given])


def test_descriptions_of_functions_are_looked_at_too() -> None:
    """What a decorator read off a function."""

    def f() -> None: ...

    f.__doc__ = "Say \ud800."
    with pytest.raises(OptionError, match="The tool `f` cannot be written as JSON: .*`function.description`"):
        convert_tools([f])


@pytest.mark.parametrize("parameters", [{"anyOf": [{"type": "array"}]}, {"enum": [1]}, {"$ref": "#"}], ids=str)
def test_arguments_that_can_be_no_object_are_refused_where_a_call_is_forced(tokenizer, parameters: Any) -> None:
    """Before anything is computed, also where their type is said in another way."""
    from langnorm.chat.tools import ToolUse
    from tests.support.grammars import grammar_with

    use = ToolUse(tuple(convert_tools([{"name": "f", "parameters": parameters}])), must_call=True)
    with pytest.raises(OptionError, match="cannot be held to"):
        grammar_with(tokenizer, use=use)


def test_a_schema_of_a_function_is_read_in_all_forms() -> None:
    """OpenAI's, Anthropic's and Bedrock's."""
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for schema in (
        {"name": "f", "parameters": parameters},
        {"name": "f", "input_schema": parameters},
        {"type": "function", "function": {"name": "f", "parameters": parameters}},
        {"toolSpec": {"name": "f", "inputSchema": {"json": parameters}}},
    ):
        assert json_schema_of(schema) == {"title": "f", **parameters}


@pytest.mark.parametrize("schema", [3, {"foo": 1}, {}, {"toolSpec": {}}], ids=str)
def test_what_is_no_schema_is_an_error(schema: Any) -> None:
    """For whoever asks to say it in words of their own."""
    with pytest.raises((ValueError, TypeError)):
        json_schema_of(schema)


def test_references_beside_constraints_stay() -> None:
    """Both hold."""
    schema = {"$ref": "#/$defs/a", "required": ["x"], "$defs": {"a": {"type": "object"}}}
    assert json_schema_of(schema) == schema

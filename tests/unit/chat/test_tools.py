"""What a call says of tools and formats means the same in every form in which it is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from langnorm.chat.tools import convert_tools, resolve_schema, resolve_tool_use
from langnorm.errors import OptionError
from tests.support.odd_values import ODD_VALUES


class Person(BaseModel):
    """A person."""

    name: str


class PersonDict(TypedDict):
    """A person."""

    name: str


def weather(city: str) -> str:
    """Get the weather."""
    return city


def clock() -> str:
    """Tell the time."""
    return "12"


def test_tools_in_all_forms() -> None:
    """Functions, classes, typed dicts, OpenAI's and Anthropic's dicts."""
    anthropic = {"name": "f", "description": "", "input_schema": {"type": "object", "properties": {}}}
    openai = {"type": "function", "function": {"name": "g", "parameters": {}}}
    converted = convert_tools([weather, Person, PersonDict, anthropic, openai])
    assert [tool["function"]["name"] for tool in converted] == ["weather", "Person", "PersonDict", "f", "g"]
    assert convert_tools([weather], strict=True)[0]["function"]["strict"] is True


@pytest.mark.parametrize("choice", [None, "auto", {"type": "auto"}])
def test_a_model_may_choose(choice: Any) -> None:
    """By default it calls or answers."""
    use = resolve_tool_use([weather, clock], choice, is_parallel=None)
    assert (len(use.tools), use.must_call, use.name, use.is_parallel) == (2, False, None, False)


@pytest.mark.parametrize("choice", ["any", "required", True, {"type": "any"}])
def test_a_model_must_call(choice: Any) -> None:
    """Any of the tools."""
    use = resolve_tool_use([weather, clock], choice, is_parallel=False)
    assert (use.must_call, use.name, use.is_parallel) == (True, None, False)
    assert [function["name"] for function in use.offered] == ["weather", "clock"]


@pytest.mark.parametrize(
    "choice", ["clock", {"type": "function", "function": {"name": "clock"}}, {"type": "tool", "name": "clock"}]
)
def test_a_model_must_call_one(choice: Any) -> None:
    """The others are shown to it and cannot be called."""
    use = resolve_tool_use([weather, clock], choice, is_parallel=None)
    assert (use.must_call, use.name, use.is_parallel, len(use.tools)) == (True, "clock", False, 2)
    assert [function["name"] for function in use.offered] == ["clock"]


@pytest.mark.parametrize("choice", ["none", False, {"type": "none"}])
def test_a_model_must_not_call(choice: Any) -> None:
    """Then no tool is shown to it."""
    assert resolve_tool_use([weather], choice, is_parallel=None).tools == ()


def test_a_tool_may_be_called_any() -> None:
    """A name goes before a word with a meaning of its own."""

    def auto() -> None:
        """Drive."""

    assert resolve_tool_use([auto], "auto", is_parallel=None).name == "auto"


@pytest.mark.parametrize(
    ("tools", "choice", "message"),
    [
        ([weather], "wether", "names no tool of this call; they are `weather`.*Did you mean `weather`"),
        ([weather], 3, "`tool_choice=3` is not allowed"),
        ([weather], {"type": "function", "function": {"name": "g"}}, "names no tool"),
        ([], "any", "there are no tools"),
        ([], "f", "it has no tools"),
        ("weather", None, "Give a list of tools"),
        ([3], None, "cannot be a tool"),
        ([{"a": 1}], None, "cannot be a tool"),
    ],
)
def test_what_cannot_be_meant_is_refused(tools: Any, choice: Any, message: str) -> None:
    """With what is allowed."""
    with pytest.raises(OptionError, match=message):
        resolve_tool_use(tools, choice, is_parallel=None)


def without(*allowed: Any) -> list[Any]:
    """Returns the odd values that are not these."""
    return [value for value in ODD_VALUES if not any(value is item for item in allowed)]


@pytest.mark.parametrize("tools", [v for v in ODD_VALUES if not isinstance(v, list | tuple) or v], ids=repr)
def test_tools_of_another_type_are_refused(tools: Any) -> None:
    """Neither an empty dict nor a set passes for a list of tools, and a list has to have tools in it."""
    with pytest.raises(OptionError, match="Give a list of tools|cannot be a tool"):
        resolve_tool_use(tools, None, is_parallel=None)


@pytest.mark.parametrize(
    "tool",
    [
        *ODD_VALUES,
        None,
        {"type": ["x"]},
        {"type": "function"},
        {"type": "function", "function": None},
        {"name": ["x"]},
        {"title": 3},
        {"type": "function", "function": {"name": 3}},
        {"type": "function", "function": {"name": ""}},
        {"type": "function", "function": {"name": "f", "parameters": 3}},
    ],
    ids=repr,
)
def test_an_item_that_cannot_be_a_tool_is_refused(tool: Any) -> None:
    """The error says what can be one, also where LangChain's conversion fails in another way."""
    with pytest.raises(OptionError, match=r"cannot be a tool.*Use a function|This tool cannot be written as JSON"):
        convert_tools([tool])


@pytest.mark.parametrize(
    "choice",
    [
        *without(True, False),
        {"type": ["x"]},
        {"type": {}},
        {"type": None},
        {"type": np.array([1, 2])},
        {"name": ["weather"]},
        {"type": "function"},
        {"type": "function", "function": {"name": 3}},
    ],
    ids=repr,
)
def test_a_choice_of_another_type_is_refused(choice: Any) -> None:
    """The error says what a choice may be, with tools and without."""
    for tools in ([weather], None):
        with pytest.raises(OptionError, match='tool_choice=.*Use the name of a tool, "auto", "any" or "none"'):
            resolve_tool_use(tools, choice, is_parallel=None)


@pytest.mark.parametrize("value", [*without(True, False), "yes"], ids=repr)
def test_parallel_calls_are_true_or_false(value: Any) -> None:
    """Neither 0 nor a number of numpy passes for a flag."""
    with pytest.raises(OptionError, match="parallel_tool_calls=.*Use True, False or None"):
        resolve_tool_use([weather], None, is_parallel=value)


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("response_format", "schema"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_object", "schema": SCHEMA}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}, SCHEMA),
        ({"type": "json_schema", "schema": SCHEMA}, SCHEMA),
        (SCHEMA, SCHEMA),
        ({"enum": ["a"]}, {"enum": ["a"]}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
    ],
)
def test_formats_of_an_answer(response_format: Any, schema: Any) -> None:
    """OpenAI's, and a schema as it is."""
    assert resolve_schema(response_format) == schema


def test_a_class_is_a_format() -> None:
    """Its schema is what an answer follows."""
    schema = resolve_schema(Person)
    assert schema is not None
    assert schema["properties"]["name"]["type"] == "string"


@pytest.mark.parametrize(
    "response_format",
    [
        *ODD_VALUES,
        *({"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": 3}, "json"),
        *({"type": []}, {"type": [3]}, {"type": ["x"]}, {"type": b"object"}, {"type": np.array([1, 2])}),
        {"type": "json_object", "schema": None},
    ],
    ids=repr,
)
def test_formats_that_there_are_not(response_format: Any) -> None:
    """Refused before anything is computed."""
    with pytest.raises(OptionError, match="`response_format=.*is not allowed"):
        resolve_schema(response_format)

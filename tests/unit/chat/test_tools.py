"""What a call says of tools and formats means the same in every form in which it is written."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from langnorm.chat.tools import convert_tools, resolve_schema, resolve_tool_use
from langnorm.errors import OptionError


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
    found = convert_tools([weather, Person, PersonDict, anthropic, openai])
    assert [tool["function"]["name"] for tool in found] == ["weather", "Person", "PersonDict", "f", "g"]
    assert convert_tools([weather], strict=True)[0]["function"]["strict"] is True


@pytest.mark.parametrize("choice", [None, "auto", {"type": "auto"}])
def test_a_model_may_choose(choice: Any) -> None:
    """By default it calls or answers."""
    use = resolve_tool_use([weather, clock], choice, is_parallel=None)
    assert (len(use.tools), use.must_call, use.name, use.is_parallel) == (2, False, None, True)


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
        ([], "f", "they are none"),
        ("weather", None, "Give a list of tools"),
        ([3], None, "cannot be a tool"),
        ([{"a": 1}], None, "cannot be a tool"),
    ],
)
def test_what_cannot_be_meant_is_refused(tools: Any, choice: Any, message: str) -> None:
    """With what is allowed."""
    with pytest.raises(OptionError, match=message):
        resolve_tool_use(tools, choice, is_parallel=None)


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("given", "schema"),
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
def test_formats_of_an_answer(given: Any, schema: Any) -> None:
    """OpenAI's, and a schema as it is."""
    assert resolve_schema(given) == schema


def test_a_class_is_a_format() -> None:
    """Its schema is what an answer follows."""
    schema = resolve_schema(Person)
    assert schema is not None
    assert schema["properties"]["name"]["type"] == "string"


@pytest.mark.parametrize("given", [{"type": "xml"}, {"type": "json_schema"}, {}, 3, "json"])
def test_formats_that_there_are_not(given: Any) -> None:
    """Refused before anything is computed."""
    with pytest.raises(OptionError, match="`response_format=.*is not allowed"):
        resolve_schema(given)

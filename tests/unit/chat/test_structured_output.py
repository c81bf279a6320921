"""A schema and a method are checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from pydantic import BaseModel, ConfigDict, RootModel
from typing_extensions import TypedDict

from langnorm import ChatLangNorm
from langnorm.chat.answer_parser import AnswerParser
from langnorm.errors import OptionError
from langnorm.testing import ScriptedAnswer, ScriptedEngine
from tests.support.odd_values import ODD_VALUES

SCHEMA = {"title": "Person", "type": "object", "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize("method", [*ODD_VALUES, None], ids=repr)
def test_a_method_of_another_type_is_refused(method: Any) -> None:
    """The error names the three methods."""
    with pytest.raises(OptionError, match='method=.*"json_schema", "function_calling" or "json_mode"'):
        ChatLangNorm().with_structured_output(SCHEMA, method=method)


@pytest.mark.parametrize("value", ["false", 0, 1], ids=repr)
def test_flags_are_true_or_false(value: Any) -> None:
    """A text or a number, which Python takes for a truth value, is refused before the model is asked."""
    chat = ChatLangNorm()
    with pytest.raises(OptionError, match=r"`include_raw=.* is not allowed. Use True or False"):
        chat.with_structured_output(SCHEMA, include_raw=value)
    with pytest.raises(OptionError, match=r"`strict=.* is not allowed. Use True or False"):
        chat.with_structured_output(SCHEMA, strict=value)
    with pytest.raises(OptionError, match=r"`strict=.* is not allowed. Use True or False"):
        chat.bind_tools([], strict=value)


@pytest.mark.parametrize(
    ("method", "settings", "name"),
    [
        ("json_schema", {"response_format": {"type": "json_object"}}, "response_format"),
        ("json_mode", {"response_format": {"type": "json_object"}}, "response_format"),
        ("function_calling", {"tool_choice": "any"}, "tool_choice"),
        ("function_calling", {"tools": [SCHEMA]}, "tools"),
    ],
)
def test_what_a_method_sets_by_itself_is_refused(method: Any, settings: dict[str, Any], name: str) -> None:
    """In a sentence, and not as an argument that is there twice."""
    with pytest.raises(OptionError, match=f'`{name}` is not allowed here: `method="{method}"` sets it'):
        ChatLangNorm().with_structured_output(SCHEMA, method=method, **settings)


def test_a_misspelt_method_has_a_hint() -> None:
    """The closest method is named."""
    with pytest.raises(OptionError, match="Did you mean `json_schema`"):
        ChatLangNorm().with_structured_output(SCHEMA, method="json-schema")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize(
    "schema",
    [
        *(value for value in ODD_VALUES if not isinstance(value, dict)),
        *(
            {"type": ["x"]},
            {"type": [3]},
            {"title": 3},
            {"type": "function", "function": {"name": "f", "parameters": 3}},
        ),
        {"name": ["x"], "title": np.array([1, 2])},
    ],
    ids=repr,
)
def test_what_is_not_a_schema_is_refused(schema: Any, method: Any) -> None:
    """The error says what can be one, also where LangChain's conversion fails in another way."""
    with pytest.raises(OptionError, match=r"is not a schema|cannot be (held to|written as JSON): ."):
        ChatLangNorm().with_structured_output(schema, method=method)


def test_only_json_mode_needs_no_schema() -> None:
    """Without a schema the answer is any JSON object, and the other methods say that they need one."""
    assert ChatLangNorm().with_structured_output(None, method="json_mode")
    with pytest.raises(OptionError, match="`schema=None` is not allowed with"):
        ChatLangNorm().with_structured_output(None)


class Item(BaseModel):
    """An item."""

    name: str
    count: int = 1


class Tree(BaseModel):
    """A tree."""

    name: str
    kids: list[Tree] = []


class Numbers(RootModel[list[int]]):
    """Some numbers."""


class Day(BaseModel):
    """A day, read strictly."""

    model_config = ConfigDict(strict=True)
    day: date


class Node(TypedDict):
    """A node that has others."""

    kids: list[Node]


METHODS: tuple[Any, ...] = ("json_schema", "function_calling", "json_mode")


def asked(answer: str, schema: Any, method: Any, *, include_raw: bool = False, reason: Any = "stop") -> Any:
    """Returns what structured output makes of an answer, given as the value that the model writes."""
    name = getattr(schema, "__name__", None) or (schema or {}).get("title", "Answer")
    text = answer
    if method == "function_calling":
        text = f'<tool_call>\n{{"name": "{name}", "arguments": {answer}}}\n</tool_call>'
    engine = ScriptedEngine([ScriptedAnswer(text, finish_reason=reason)], is_repeated=True)
    chat = ChatLangNorm(engine=engine, norms="off")
    chain = chat.with_structured_output(schema, method=method, include_raw=include_raw)
    return chain.invoke("?")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("schema", "answer", "value"),
    [
        (Item, '{"name": "a", "count": 2}', Item(name="a", count=2)),
        (Tree, '{"name": "a", "kids": [{"name": "b"}]}', Tree(name="a", kids=[Tree(name="b")])),
        (Numbers, "[1, 2]", Numbers([1, 2])),
        (Day, '{"day": "2026-01-02"}', Day(day=date(2026, 1, 2))),
        (Node, '{"kids": [{"kids": []}]}', {"kids": [{"kids": []}]}),
        ({"title": "Answer", "enum": ["red", "blue"]}, '"red"', "red"),
        ({"title": "Answer", "type": "boolean"}, "true", True),
        ({"type": "integer"}, "0", 0),
        ({"type": "null"}, "null", None),
        ({"type": "array", "items": {"type": "integer"}}, "[1]", [1]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"a": 1}', {"a": 1}),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, '"x"', "x"),
        ({"properties": {"a": {"type": "integer"}}}, '{"a": 1}', {"a": 1}),
        (Tree.model_json_schema() | {"title": "Tree"}, '{"name": "a"}', {"name": "a"}),
    ],
    ids=str,
)
def test_every_schema_is_held_to(schema: Any, answer: str, value: Any, method: Any) -> None:
    """Classes and dicts of all kinds, by each method; what is no object is an argument of its own in a call."""
    is_object = answer.startswith("{")
    written = answer if is_object or method != "function_calling" else f'{{"value": {answer}}}'
    assert asked(written, schema, method) == value
    raw = asked(written, schema, method, include_raw=True)
    assert (raw["parsed"], raw["parsing_error"]) == (value, None)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        (Item, '{"name": 3}'),
        (Tree, '{"name": "a", "kids": [{"name": 3}]}'),
        (Node, '{"kids": [3]}'),
        ({"title": "Answer", "type": "object", "properties": {"a": {"type": "string"}}}, '{"a": 3}'),
        ({"title": "Answer", "type": "object", "required": ["a"]}, "{}"),
    ],
    ids=str,
)
def test_what_is_not_in_the_schema_is_an_error(schema: Any, answer: str, method: Any) -> None:
    """Of classes, typed dicts and dicts alike; with the raw message, in its place."""
    with pytest.raises(OutputParserException):
        asked(answer, schema, method)
    raw = asked(answer, schema, method, include_raw=True)
    assert raw["parsed"] is None
    assert isinstance(raw["parsing_error"], OutputParserException)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Item, {"title": "Item", "type": "object", "properties": {"name": {}}}], ids=str)
def test_an_answer_that_was_cut_off_is_an_error(schema: Any, method: Any) -> None:
    """Also where what there is could be read: half of a number is another number."""
    for answer in ('{"name": "a", "count": 5', '{"name": "a", "count": 5}'):
        with pytest.raises(OutputParserException, match="cut off at `max_tokens`"):
            asked(answer, schema, method, reason="length")


@pytest.mark.parametrize("answer", ["", "{", '{"name": NaN}', "[" * 50_000, '{"name": "a"} and more'])
def test_what_is_no_json_is_an_error(answer: str) -> None:
    """It is not mended."""
    with pytest.raises(OutputParserException):
        asked(answer, {"type": ["object", "array"]}, "json_schema")


def test_a_call_of_another_tool_is_no_answer() -> None:
    """Nor is a text instead of a call, or a call without its one argument."""
    schema = {"title": "Answer", "type": "integer"}
    engine = ScriptedEngine(
        ["3", '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>',
         '<tool_call>\n{"name": "Answer", "arguments": {}}\n</tool_call>']
    )  # fmt: skip
    chain = ChatLangNorm(engine=engine, norms="off").with_structured_output(schema, method="function_calling")
    for message in ("no call of `Answer`", "no call of `Answer`", "no argument `value`"):
        with pytest.raises(OutputParserException, match=message):
            chain.invoke("?")


def test_a_call_in_place_of_a_value_is_called_so() -> None:
    """Where tools are offered beside the schema, the model may call one; that is no broken JSON."""
    engine = ScriptedEngine(['<tool_call>\n{"name": "Item", "arguments": {"name": "x"}}\n</tool_call>'])
    chain = ChatLangNorm(engine=engine, norms="off").with_structured_output(Item, tools=[Item])
    with pytest.raises(OutputParserException, match="has no value: it calls `Item`. Read `tool_calls`"):
        chain.invoke("?")


@pytest.mark.parametrize("include_raw", [False, True])
def test_settings_of_a_call_reach_the_model(include_raw: bool) -> None:
    """Those of `invoke`, with the raw message and without."""
    engine = ScriptedEngine(['{"name": "a"}'])
    chain = ChatLangNorm(engine=engine, norms="off").with_structured_output(Item, include_raw=include_raw)
    chain.invoke("?", max_tokens=77, temperature=0.5)
    (request,) = engine.requests
    assert (request.sampling.max_tokens, request.sampling.temperature) == (77, 0.5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Tree, {"title": "Answer", "enum": ["long word " * 9]}], ids=str)
def test_what_cannot_fit_is_refused(schema: Any, method: Any) -> None:
    """Before anything is computed, and with the number of tokens that are needed."""
    engine = ScriptedEngine(["x"])
    chain = ChatLangNorm(engine=engine, norms="off").with_structured_output(schema, method=method)
    with pytest.raises(OptionError, match=r"takes (\d+) tokens, and `max_tokens` or the context leaves 3"):
        chain.invoke("?", max_tokens=3)
    assert not engine.requests


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "schema",
    [
        *({"type": "string", "minLength": "x"}, {"type": "object", "properties": []}, {"enum": 5}, {"$ref": "#"}),
        *({"type": "object", "properties": {"a\ud800": {}}}, {"const": "\udc00"}, {"foo": 3}),
    ],
    ids=ascii,
)
def test_a_malformed_schema_is_refused_at_once(schema: Any, method: Any) -> None:
    """When the chain is made."""
    with pytest.raises(OptionError, match="cannot be|is not a schema"):
        ChatLangNorm().with_structured_output(schema, method=method)


def test_the_grammar_holds_to_the_whole_schema() -> None:
    """A schema without properties is not dropped on its way."""
    engine = ScriptedEngine(['"red"', "[]"])
    chat = ChatLangNorm(engine=engine, norms="off")
    chat.with_structured_output({"title": "Color", "enum": ["red", "blue"]}).invoke("?")
    chat.with_structured_output({"type": "array", "items": {"$ref": "#/$defs/x"}, "$defs": {"x": {}}}).invoke("?")
    first, second = (request.grammar.lark for request in engine.requests if request.grammar)
    assert '"enum": ["red", "blue"]' in first
    assert '"$ref": "#/$defs/x"' in second


@pytest.mark.parametrize("method", METHODS)
def test_plain_data_is_streamed_while_it_comes_and_instances_whole(method: Any) -> None:
    """The last item is what `invoke` returns; one that was cut off, or is not in the schema, ends in an error."""
    text = '{"name": "Anna", "count": 12}'
    text = (
        text if method != "function_calling" else f'<tool_call>\n{{"name": "Item", "arguments": {text}}}\n</tool_call>'
    )
    schema = Item.model_json_schema()

    def stream(schema: Any, **answer: Any) -> Iterator[Any]:
        engine = ScriptedEngine([ScriptedAnswer(text, **answer)])
        yield from ChatLangNorm(engine=engine, norms="off").with_structured_output(schema, method=method).stream("?")

    parts = list(stream(schema))
    assert parts[-1] == {"name": "Anna", "count": 12}
    assert len(parts) > 2
    assert list(stream(Item)) == [Item(name="Anna", count=12)]
    with pytest.raises(OutputParserException, match="cut off"):
        list(stream(schema, finish_reason="length"))
    with pytest.raises(OutputParserException, match="not in its schema"):
        list(stream({**schema, "properties": {**schema["properties"], "count": {"type": "string"}}}))


async def test_streams_of_tasks_are_the_same() -> None:
    """Asynchronously."""
    engine = ScriptedEngine(['{"name": "Anna"}', "[1, 2"])
    chat = ChatLangNorm(engine=engine, norms="off")
    parts = [part async for part in chat.with_structured_output(Item.model_json_schema()).astream("?")]
    assert parts[-1] == {"name": "Anna"}
    with pytest.raises(OutputParserException, match="not JSON"):
        async for _ in chat.with_structured_output({"type": "array"}).astream("?"):
            pass


def test_the_parser_takes_texts_too() -> None:
    """As other parsers of LangChain do."""
    parser = AnswerParser(json_schema={"type": "array"})
    assert parser.parse("[1]") == [1]
    assert parser.invoke("[1]") == [1]
    assert list(parser.transform(iter(["[1", ", 2]"]))) == [[1], [1, 2]]
    assert list(parser.transform(iter([AIMessage("[3]")]))) == [[3]]
    assert list(parser.transform(iter([]))) == []

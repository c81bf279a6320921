"""Whatever comes to its end is in its schema, judged by another implementation of JSON schema; the rest is an error."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration

from langnorm.chat.answer_parser import AnswerParser
from langnorm.chat.schemas import plain_copy
from langnorm.chat.shortest_text import shortest_text
from langnorm.chat.tools import ToolUse, convert_tools
from langnorm.errors import OptionError
from langnorm.text.readers import TagReader, parse_answer
from langnorm.text.tool_calls import HERMES
from tests.support.grammars import grammar_with
from tests.support.schemas import json_schemas, random_answer

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def parsed(schema: dict[str, Any], text: str, *, is_whole: bool) -> Any:
    """Returns what structured output makes of an answer."""
    message = AIMessage(text, response_metadata={"finish_reason": "stop" if is_whole else "length"})
    return AnswerParser(json_schema=schema).parse_result([ChatGeneration(message=message)])


@SETTINGS
@given(schema=json_schemas, seed=st.integers(0, 10**6), limit=st.integers(1, 150))
def test_an_answer_is_in_its_schema_or_an_error(tokenizer, schema: dict[str, Any], seed: int, limit: int) -> None:
    """At every `max_tokens`: refused before the first token, cut off and an error, or whole and right."""
    try:
        grammar = grammar_with(tokenizer, schema=schema, room=limit)
    except OptionError as error:
        assert "The shortest answer" in str(error)  # noqa: PT017 (it may also do)
        return
    ids, is_whole = random_answer(tokenizer, grammar, limit, seed)
    text = tokenizer.decode(ids)
    if is_whole:
        jsonschema.validate(json.loads(text), schema)
        assert parsed(schema, text, is_whole=True) == json.loads(text)
        assert len(shortest_text(plain_copy(schema)) or "") <= len(text)
    else:
        with pytest.raises(OutputParserException, match="cut off"):
            parsed(schema, text, is_whole=False)


@SETTINGS
@given(schema=json_schemas, seed=st.integers(0, 10**6), limit=st.integers(20, 200))
def test_a_forced_call_has_its_arguments_or_is_invalid(tokenizer, schema, seed: int, limit: int) -> None:
    """Arguments that were cut off never pass for whole ones."""
    definitions = {"$defs": schema["$defs"]}
    parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"], **definitions}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    use = ToolUse(tuple(convert_tools([tool])), must_call=True)
    try:
        grammar = grammar_with(tokenizer, use=use, room=limit)
    except OptionError as error:
        assert "The shortest answer" in str(error)  # noqa: PT017
        return
    ids, is_whole = random_answer(tokenizer, grammar, limit, seed)
    (call,) = parse_answer(TagReader(form=HERMES), [tokenizer.decode(ids)]).calls or [None]
    if is_whole:
        assert call
    if call and call.error is None:
        jsonschema.validate(call.arguments, parameters)


@SETTINGS
@given(schema=json_schemas)
def test_the_shortest_text_fits_where_nothing_else_does(tokenizer, schema: dict[str, Any]) -> None:
    """A schema that has a text is never refused at the length of that text, and one token less is too few."""
    text = shortest_text(plain_copy(schema))
    assert text is not None
    num_tokens = len(tokenizer(text)["input_ids"]) + 1
    assert grammar_with(tokenizer, schema=schema, room=num_tokens).least_tokens == num_tokens
    if num_tokens > 1:
        with pytest.raises(OptionError, match=f"takes {num_tokens} tokens"):
            grammar_with(tokenizer, schema=schema, room=num_tokens - 1)

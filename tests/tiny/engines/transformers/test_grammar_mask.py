"""A row with a grammar writes what the grammar allows, whatever the model wants; other rows notice nothing."""

from __future__ import annotations

import json
import sys
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.tools import tool

from langnorm import ChatLangNorm
from langnorm.chat.grammars import build_grammar, closed_schema, least_length
from langnorm.chat.tools import ToolUse, convert_tools
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Request
from langnorm.errors import MissingDependencyError, OptionError
from langnorm.text.tool_calls import HERMES, LLAMA, MISTRAL_NAMED, ToolForm

PROMPT = tuple(range(40, 60))
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "color": {"enum": ["red", "blue"]},
        "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}},
    },
    "required": ["name", "age", "color", "friends"],
    "$defs": {"friend": {"type": "object", "properties": {"nick": {"type": "string"}}, "required": ["nick"]}},
}


@tool
def convert(amount: float, unit: str, precise: bool = False) -> str:
    """Convert an amount."""
    return f"{amount} {unit} {precise}"


@tool
def now() -> str:
    """Tell the time."""
    return "12:00"


def grammar_of(tokenizer: Any, **given: Any) -> Any:
    """Returns a grammar with defaults for what is not given."""
    defaults = {"use": ToolUse(), "schema": None, "form": HERMES, "is_thinking": False, "may_think": False}
    return build_grammar(tokenizer, **(defaults | given))


def text_of(engine: Any, *, max_tokens: int = 120, seed: int | None = None, **given: Any) -> str:
    """Returns what a model writes under a grammar."""
    sampling = Sampling(max_tokens=max_tokens, seed=seed, temperature=0 if seed is None else 1.0)
    request = Request(PROMPT, sampling, grammar=grammar_of(engine.tokenizer, **given))
    (response,) = engine.generate([request])
    return "".join(response.completions[0].pieces)


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_random_weights_fill_a_schema(engine_of, family: str, seed: int | None) -> None:
    """A model that knows nothing answers in valid JSON, and comes to an end in time."""
    text = text_of(engine_of(family), schema=PERSON, seed=seed)
    jsonschema.validate(json.loads(text), closed_schema(PERSON))


@pytest.mark.parametrize("max_tokens", [60, 90, 200])
def test_an_answer_ends_before_its_last_token(engine_of, max_tokens: int) -> None:
    """Texts and lists that a model goes on with are closed in time."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "integer"}}},
        "required": ["a", "b"],
    }
    for seed in range(4):
        found = json.loads(text_of(engine_of("qwen3"), schema=schema, seed=seed, max_tokens=max_tokens))
        assert set(found) == {"a", "b"}


json_schemas = st.recursive(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "string", "maxLength": 5},
            {"type": "integer"},
            {"type": "number", "minimum": 0, "maximum": 9},
            {"type": "boolean"},
            {"type": "null"},
            {"enum": ["a", "ü", 3]},
            {"const": "x"},
        ]
    ),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["a", "日本", 'q"q', "long_name"]), inner, max_size=3).map(
            lambda properties: {"type": "object", "properties": properties, "required": list(properties)}
        ),
        inner.map(lambda items: {"type": "array", "items": items, "maxItems": 2}),
        st.lists(inner, min_size=1, max_size=2).map(lambda options: {"anyOf": options}),
    ),
    max_leaves=5,
)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(schema=json_schemas, seed=st.integers(0, 10**6))
def test_any_schema_is_filled(engine_of, schema: dict[str, Any], seed: int) -> None:
    """Judged by another implementation of JSON schema."""
    text = text_of(engine_of("qwen3"), schema=schema, seed=seed, max_tokens=400)
    jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize("form", [HERMES, LLAMA])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_call_that_must_be_made_is_made(engine_of, form: ToolForm, seed: int) -> None:
    """In the family's own form, with arguments that follow the tool's schema."""
    from langnorm.text.readers import TagReader, parse_answer

    use = ToolUse(tuple(convert_tools([convert, now])), must_call=True)
    text = text_of(engine_of("qwen3"), use=use, form=form, seed=seed, max_tokens=200)
    reading = parse_answer(TagReader(form=form), [text])
    assert reading.calls
    for call in reading.calls:
        assert call.error is None
        (schema,) = [f["parameters"] for f in use.offered if f["name"] == call.name]
        jsonschema.validate(call.arguments, schema)
    assert reading.text("answer") == ""


def test_named_calls_of_mistral(tokenizer: Any) -> None:
    """Marks that are no tokens of this tokenizer are spelt out."""
    use = ToolUse(tuple(convert_tools([convert, now])), must_call=True)
    assert '"[TOOL_CALLS]"' in grammar_of(tokenizer, use=use, form=MISTRAL_NAMED).lark


def test_reasoning_stays_free_and_ends(abacus_engine) -> None:
    """The thought comes first, as long as there is room for it; what follows is held to the schema."""
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    chat = ChatLangNorm(engine=abacus_engine, temperature=0)
    reply = chat.invoke("Calculate 47 + 385.", response_format={"type": "json_object", "schema": schema})
    assert "432" in reply.additional_kwargs["reasoning_content"]
    assert set(json.loads(str(reply.content))) == {"answer"}
    short = chat.invoke(
        "Start with 9. Add 3. Add 4. Multiply by 12. Add 88. Subtract 7. What is the result?",
        response_format={"type": "json_object", "schema": schema},
        max_tokens=60,
    )
    assert set(json.loads(str(short.content))) == {"answer"}


def test_rows_of_a_batch_keep_to_their_own(engine_of) -> None:
    """Rows with and without grammars, greedy and sampled, write what they write alone."""
    engine = engine_of("qwen3")
    grammar = grammar_of(engine.tokenizer, schema=PERSON)
    other = grammar_of(engine.tokenizer, schema={"type": "array", "items": {"type": "boolean"}, "maxItems": 3})
    requests = [
        Request(PROMPT, Sampling(max_tokens=100)),
        Request(PROMPT[:7], Sampling(max_tokens=120), grammar=grammar),
        Request(PROMPT[:3], Sampling(max_tokens=40, temperature=1.0, seed=3), grammar=other),
        Request(PROMPT[:9], Sampling(max_tokens=120, temperature=0.7, seed=4, n=2), grammar=grammar),
    ]
    together = [[c.token_ids for c in response.completions] for response in engine.generate(requests)]
    alone = [[c.token_ids for c in engine.generate([request])[0].completions] for request in requests]
    assert together == alone


def test_scores_that_are_allowed_are_left_alone(engine_of) -> None:
    """Of the tokens that lead on, the likeliest is taken: the grammar adds nothing of its own."""
    from llguidance import LLMatcher

    from langnorm.engines.vocabulary import get_vocabulary

    engine = engine_of("qwen3")
    grammar = grammar_of(engine.tokenizer, schema=PERSON)
    request = Request(PROMPT, Sampling(max_tokens=200), grammar=grammar)
    tokens = engine.generate([request])[0].completions[0].token_ids
    model = engine.model
    ends = [model.generation_config.eos_token_id]
    vocabulary = get_vocabulary(engine.tokenizer, len(engine.tokenizer), ends)
    matcher = LLMatcher(vocabulary, LLMatcher.grammar_from_lark(grammar.lark))
    ids = list(PROMPT)
    for token in tokens[: 200 - grammar.least_tokens]:
        with torch.inference_mode():
            scores = model(torch.tensor([ids])).logits[0, -1]
        allowed = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8).bool()
        assert int(scores.masked_fill(~allowed, -torch.inf).argmax()) == token
        matcher.consume_token(token)
        ids.append(token)


def test_a_schema_that_cannot_be_held_to_is_refused(tokenizer: Any) -> None:
    """Before any compute, with what the library says about it."""
    with pytest.raises(OptionError, match="cannot be held to.*nonsense"):
        grammar_of(tokenizer, schema={"type": "string", "format": "nonsense"})


def test_no_grammar_where_nothing_is_forced(tokenizer: Any) -> None:
    """Tools that may be called leave the answer free."""
    assert grammar_of(tokenizer, use=ToolUse(tuple(convert_tools([now])))) is None


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        ({"type": "object", "properties": {"a": {}}}, False),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, True),
        ({"type": "object"}, None),
        ({"type": "object", "properties": {"properties": {"type": "string"}}}, False),
    ],
)
def test_objects_have_the_properties_that_are_named(schema: dict[str, Any], closed: bool | None) -> None:
    """As function calling understands a schema; one that allows more still does, and one without any is free."""
    assert closed_schema(schema).get("additionalProperties") is closed


def test_parts_that_are_joined_stay_open() -> None:
    """Each part of an `allOf` would otherwise forbid what the others name."""
    schema = {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}
    assert closed_schema(schema) == schema


def test_the_shortest_text_is_estimated_from_above() -> None:
    """Also of a schema that refers to itself."""
    tree = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}}
    assert 0 < least_length(tree) < 200
    assert least_length(PERSON) >= len('{"name": "", "age": 0, "color": "blue", "friends": []}')


def test_without_the_extra_there_is_a_hint(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be installed is said, before any compute."""
    monkeypatch.setitem(sys.modules, "llguidance.hf", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "langnorm\[structured\]"'):
        grammar_of(tokenizer, schema=PERSON)

"""A row with a grammar writes what the grammar allows, whatever the model wants; other rows notice nothing."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langnorm.chat.schemas import closed_schema
from langnorm.chat.tools import ToolUse, convert_tools
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Request
from langnorm.text.tool_calls import HERMES, LLAMA, ToolForm
from tests.support.grammars import PERSON, convert, grammar_with, now

PROMPT = tuple(range(40, 60))


def text_of(engine: Any, *, max_tokens: int = 120, seed: int | None = None, **given: Any) -> str:
    """Returns what a model writes under a grammar."""
    sampling = Sampling(max_tokens=max_tokens, seed=seed, temperature=0 if seed is None else 1.0)
    request = Request(PROMPT, sampling, grammar=grammar_with(engine.tokenizer, **given))
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


def test_rows_of_a_batch_keep_to_their_own(engine_of) -> None:
    """Rows with and without grammars, greedy and sampled, write what they write alone."""
    engine = engine_of("qwen3")
    grammar = grammar_with(engine.tokenizer, schema=PERSON)
    other = grammar_with(engine.tokenizer, schema={"type": "array", "items": {"type": "boolean"}, "maxItems": 3})
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
    grammar = grammar_with(engine.tokenizer, schema=PERSON)
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

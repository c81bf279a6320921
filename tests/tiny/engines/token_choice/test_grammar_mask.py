"""A row with a grammar writes what the grammar allows, whatever the model wants; other rows notice nothing."""

from __future__ import annotations

import json
from copy import copy
from typing import Any, Literal

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.tools import tool

from langnorm.chat.schemas import closed_schema
from langnorm.chat.tools import ToolUse, convert_tools
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Request
from langnorm.text.marks import THINKING_TAGS
from langnorm.text.tool_calls import HERMES, LLAMA, ToolForm
from tests.support.grammars import PERSON, grammar_with, now
from tests.support.schemas import json_schemas

PROMPT = tuple(range(40, 60))


@tool
def book(unit: Literal["night", "week"], is_quiet: bool) -> str:
    """Book a room."""
    return f"{unit} {is_quiet}"


def text_of(engine: Any, *, max_tokens: int = 120, seed: int | None = None, **given: Any) -> str:
    """Returns what a model writes under a grammar."""
    sampling = Sampling(max_tokens=max_tokens, seed=seed, temperature=0 if seed is None else 1.0)
    request = Request(PROMPT, sampling, grammar=grammar_with(engine.tokenizer, **given))
    (response,) = engine.generate([request])
    return "".join(response.completions[0].pieces)


BOUNDED = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "color": {"enum": ["red", "blue"]},
        "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}, "maxItems": 2},
    },
    "required": ["name", "age", "color", "friends"],
    "$defs": {
        "friend": {"type": "object", "properties": {"nick": {"type": "string", "maxLength": 5}}, "required": ["nick"]}
    },
}
"""What has an end whatever a model writes."""


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_random_weights_fill_a_schema(engine_of, family: str, seed: int | None) -> None:
    """A model that knows nothing answers in valid JSON."""
    text = text_of(engine_of(family), schema=BOUNDED, seed=seed, max_tokens=400)
    jsonschema.validate(json.loads(text), closed_schema(BOUNDED))


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(schema=json_schemas, seed=st.integers(0, 10**6), max_tokens=st.integers(30, 150))
def test_an_answer_is_in_its_schema_or_cut_off(engine_of, schema: dict[str, Any], seed: int, max_tokens: int) -> None:
    """Judged by another implementation of JSON schema; what does not end in time is never ended for the model."""
    engine = engine_of("qwen3")
    grammar = grammar_with(engine.tokenizer, schema=schema)
    sampling = Sampling(max_tokens=max_tokens, seed=seed, temperature=1.0)
    ((completion,),) = (r.completions for r in engine.generate([Request(PROMPT, sampling, grammar=grammar)]))
    if completion.finish_reason == "stop":
        jsonschema.validate(json.loads("".join(completion.pieces)), schema)
    else:
        assert len(completion.token_ids) == max_tokens


@pytest.mark.parametrize("marks", THINKING_TAGS)
@pytest.mark.parametrize("is_open", [True, False])
def test_reasoning_leaves_room_for_the_answer(engine_of, marks: tuple[str, str], is_open: bool) -> None:
    """Marks of one token or of several are written in time, and the answer after them is whole."""
    engine = engine_of("qwen3")
    tokenizer = copy(engine.tokenizer)
    tokenizer.chat_template = f"{{# {marks[0]} {marks[1]} #}}"
    schema = {"type": "object", "properties": {"color": {"enum": ["red", "blue"]}}, "required": ["color"]}
    grammar = grammar_with(tokenizer, schema=schema, is_thinking=is_open, may_think=True)
    for seed in range(3):
        request = Request(PROMPT, Sampling(max_tokens=80, temperature=1.0, seed=seed), grammar=grammar)
        (completion,) = engine.generate([request])[0].completions
        text = "".join(completion.pieces)
        assert completion.finish_reason == "stop"
        if is_open or text.startswith(marks[0]):
            thought, _, text = text.partition(marks[1])
            assert len(thought) > 5
        assert set(json.loads(text)) == {"color"}


@pytest.mark.parametrize("closing", ["</think>", "</think> {", "</thi</think>"])
def test_a_special_mark_that_is_spelt_out_is_no_reasoning(tokenizer, closing: str) -> None:
    """A reader would take it for the end of the reasoning, which it is not for the grammar."""
    from llguidance import LLMatcher

    from langnorm.engines.vocabulary import get_vocabulary

    grammar = grammar_with(tokenizer, schema={"type": "integer"}, is_thinking=True, may_think=True)
    vocabulary = get_vocabulary(tokenizer)
    matcher = LLMatcher(vocabulary, LLMatcher.grammar_from_lark(grammar.lark))
    spelt = vocabulary.greedy_tokenize(closing)
    assert matcher.try_consume_tokens(spelt) == len(vocabulary.greedy_tokenize(closing.partition("k>")[0] + "k"))
    assert matcher.deep_copy().try_consume_tokens([tokenizer.convert_tokens_to_ids("</think>")]) == 1


@pytest.mark.parametrize("form", [HERMES, LLAMA])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("is_parallel", [False, True])
def test_a_call_that_must_be_made_is_made(engine_of, form: ToolForm, seed: int, is_parallel: bool) -> None:
    """In the family's own form, with arguments that follow the tool's schema."""
    from langnorm.text.readers import TagReader, parse_answer

    use = ToolUse(tuple(convert_tools([book, now])), must_call=True, is_parallel=is_parallel)
    text = text_of(engine_of("qwen3"), use=use, form=form, seed=seed, max_tokens=300)
    reading = parse_answer(TagReader(form=form), [text])
    assert len(reading.calls) == 1 or is_parallel
    for call in reading.calls[: 1 if is_parallel else None]:
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
    for token in tokens:
        with torch.inference_mode():
            scores = model(torch.tensor([ids])).logits[0, -1]
        allowed = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8).bool()
        assert int(scores.masked_fill(~allowed, -torch.inf).argmax()) == token
        matcher.consume_token(token)
        ids.append(token)

"""Random JSON schemas, and what random tokens make of a grammar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hypothesis import strategies as st

from langnorm.engines.token_choice.grammar_mask import GrammarMask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langnorm.engines.requests import Grammar

_NAMES = st.sampled_from(["a", "日本", 'q"q', "long_name"])
_VALUES = st.sampled_from(["a", "ü", 3, -2.5, None, True, [1, "x"], {"k": 1}])
_LEAVES = st.one_of(
    st.sampled_from([{"type": kind} for kind in ("string", "integer", "number", "boolean", "null")]),
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 4),
        st.integers(0, 4),
    ),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-1000, 1000),
        st.integers(0, 500),
    ),
    st.sampled_from([{"type": "number", "minimum": 0, "maximum": 9}, {"type": "string", "pattern": "^[A-C]{2,4}$"}]),
    st.sampled_from([{"type": "string", "format": "date"}, {"type": ["integer", "null"]}]),
    st.lists(_VALUES, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    _VALUES.map(lambda value: {"const": value}),
)


@st.composite
def _objects(draw: Any, inner: Any) -> dict[str, Any]:
    properties = draw(st.dictionaries(_NAMES, inner, max_size=3))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    schema = {"type": "object", "properties": properties, "required": required}
    return schema | draw(st.sampled_from([{}, {"additionalProperties": False}]))


_TREE = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}}}
_DEFINITIONS = {"$defs": {"tree": _TREE | {"required": ["kids"]}, "word": {"type": "string", "maxLength": 3}}}

json_schemas = st.recursive(
    st.one_of(_LEAVES, st.sampled_from([{"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/word"}])),
    lambda inner: st.one_of(
        _objects(inner),
        st.builds(
            lambda items, low, more: {"type": "array", "items": items, "minItems": low, "maxItems": low + more},
            inner,
            st.integers(0, 2),
            st.integers(0, 2),
        ),
        inner.map(lambda item: {"type": "object", "additionalProperties": item}),
        st.lists(inner, min_size=1, max_size=2).map(lambda options: {"anyOf": options}),
        inner.map(lambda item: {"type": "array", "prefixItems": [item], "items": False, "minItems": 1}),
    ),
    max_leaves=5,
).map(lambda schema: schema | _DEFINITIONS)
"""Schemas of all kinds: enums, unions, lists, maps, what refers to itself, and objects."""


def random_answer(
    tokenizer: PreTrainedTokenizerBase, grammar: Grammar, limit: int, seed: int, *, bias: float = 4.0
) -> tuple[list[int], bool]:
    """Returns random tokens that a grammar allows, without the end token, and whether they came to their end.

    Args:
        tokenizer: The model's.
        grammar: What the answer is held to.
        limit: Most tokens.
        seed: Of the random numbers.
        bias: How much likelier tokens are that close something; without it, few answers would ever end.
    """
    end_id = tokenizer.eos_token_id
    mask = GrammarMask([grammar], [limit], tokenizer, [end_id])
    generator = torch.Generator().manual_seed(seed)
    closing = [tokenizer.convert_tokens_to_ids(token) for token in ('"', "}", "]", '"}', '"]', "0")] + [end_id]
    ids: list[int] = []
    while len(ids) < limit:
        scores = torch.randn(1, len(tokenizer), generator=generator)
        scores[0, [i for i in closing if i is not None]] += bias
        token = int(mask(torch.tensor([[0, *ids]]), scores).argmax())
        if token == end_id:
            return ids, True
        ids.append(token)
    return ids, False

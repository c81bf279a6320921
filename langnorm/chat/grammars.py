"""The grammar that holds an answer to tool calls or to a JSON schema, while the reasoning before it stays free.

Grammars are in the Lark dialect of llguidance. Whatever a model wants to write, only tokens that lead to a valid answer
are left to it, so every model can call a tool and fill a schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langnorm.chat.tools import ToolUse
from langnorm.engines.requests import Grammar
from langnorm.engines.vocabulary import get_vocabulary
from langnorm.errors import OptionError
from langnorm.text.marks import THINKING_TAGS
from langnorm.text.tool_calls import ToolForm

if TYPE_CHECKING:
    from llguidance import LLTokenizer
    from transformers import PreTrainedTokenizerBase

# Written as models have learnt to write it; free white space is where weak ones get lost.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_NAMED = ("properties", "$defs", "definitions", "patternProperties")  # keys over names of the user's own
_VALUES = ("enum", "const", "default", "examples", "required")  # keys over what is no schema
_JOINED = {"allOf", "anyOf", "oneOf", "$ref", "if", "then", "else", "not"}
_DEEPEST = 4  # how far a schema that refers to itself is followed to find its shortest text
_MARGIN = 24  # tokens for marks and separators


def build_grammar(
    tokenizer: PreTrainedTokenizerBase,
    *,
    use: ToolUse,
    schema: Mapping[str, Any] | None,
    form: ToolForm,
    is_thinking: bool,
    may_think: bool,
) -> Grammar | None:
    """Return the grammar of an answer, or None where it may be any text.

    Args:
        tokenizer: The model's.
        use: The tools, and whether one of them must be called.
        schema: The JSON schema of an answer that is not a call; None where such an answer may be any text.
        form: How the model writes calls.
        is_thinking: Whether the prompt already opened the reasoning.
        may_think: Whether the model may open it.

    Raises:
        MissingDependencyError: llguidance is not installed.
        OptionError: A schema is malformed, or has something that no grammar can express.
        ModelError: The tokenizer is of a kind that cannot be constrained.
    """
    if schema is None and not use.must_call:
        return None
    vocabulary = get_vocabulary(tokenizer)
    rules = _Rules(tokenizer, vocabulary)
    bodies = []
    if use.offered:
        bodies.append(rules.calls(use, form))
    if schema is not None and not use.must_call:
        bodies.append(rules.json(schema))
    lark = rules.text(f"{rules.thinking(is_thinking=is_thinking, may_think=may_think)}({' | '.join(bodies)})")
    _check(lark, vocabulary)  # only then can lengths be read off the schemas
    lengths = [2 * len(function["name"]) + least_length(function.get("parameters") or {}) for function in use.offered]
    if schema is not None and not use.must_call:
        lengths.append(least_length(schema))
    return Grammar(lark, max(lengths) + _MARGIN)


class _Rules:
    """The rules of one grammar while it is written."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: LLTokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._rules: dict[str, str] = {}

    def text(self, start: str) -> str:
        """Return the grammar with this start."""
        return "\n".join(f"{name}: {body}" for name, body in {"start": start, **self._rules}.items()) + "\n"

    def thinking(self, *, is_thinking: bool, may_think: bool) -> str:
        """Return what may stand before the answer."""
        pair = next((p for p in THINKING_TAGS if p[0] in str(self._tokenizer.chat_template)), None)
        if pair is None or not (is_thinking or may_think):
            return ""
        opening, closing = map(self._mark, pair)
        if closing.startswith("<["):
            self._rules["THOUGHT"], thought = r"/(?s:.*)/", f"THOUGHT {closing}"
        else:
            self._rules[f"thought[suffix={closing}]"], thought = r"/(?s:.*)/", "thought"
        self._rules["GAP"] = r"/[ \n]{0,3}/"
        return f"{thought} GAP " if is_thinking else f"({opening} {thought} GAP)? "

    def calls(self, use: ToolUse, form: ToolForm) -> str:
        """Return one call or several."""
        calls = []
        for function in use.offered:
            arguments = self.json(function.get("parameters") or {"type": "object", "properties": {}})
            if form.name == "mistral_named":
                calls.append(f"{_quoted(function['name'])} {self._mark('[ARGS]')} {arguments}")
            else:
                name = json.dumps(function["name"], ensure_ascii=False)
                head = _quoted(f'{{"name": {name}, "{form.arguments_key}": ')
                calls.append(f'{head} {arguments} "}}"')
        self._rules["one_call"] = " | ".join(calls)
        if form.is_bare:
            return "one_call"
        opening = self._mark(form.opens)
        if form.is_list:
            more = '(", " one_call)*' if use.is_parallel else ""
            return f'{opening} " "? "[" one_call {more} "]"'
        if form.closes:
            self._rules["call"] = f'{opening} "\\n" one_call "\\n" {self._mark(form.closes)}'
            return 'call ("\\n" call)*' if use.is_parallel else "call"
        self._rules["call"] = f"{opening} one_call"
        return "call+" if use.is_parallel else "call"

    def json(self, schema: Mapping[str, Any]) -> str:
        """Return the name of a rule for texts of a schema."""
        name = f"json_{len(self._rules)}"
        closed = closed_schema(schema) | {"x-guidance": _LAYOUT}
        try:
            text = json.dumps(closed, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            msg = f"This schema cannot be written as JSON: {error}. Use what JSON has: strings, numbers, lists, dicts."
            raise OptionError(msg) from error
        self._rules[name] = f"%json {text}"
        return name

    def _mark(self, mark: str) -> str:
        """Return a mark as the grammar names it: by its id where it is a token of its own that no text spells."""
        ids = self._tokenizer(mark, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and self._vocabulary.is_special_token(ids[0]):
            return f"<[{ids[0]}]>"
        return _quoted(mark)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def closed_schema(schema: Any, *, is_open: bool = False) -> Any:
    """Return a schema whose objects have no properties but those that it names, as function calling understands it.

    Args:
        schema: A JSON schema or a part of one.
        is_open: Whether the object at its top is joined with others, which may name more.
    """
    if isinstance(schema, list):
        return [closed_schema(item, is_open=is_open) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    is_joined = "allOf" in schema or ("properties" in schema and bool(_JOINED & set(schema)))
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, Mapping):
            closed[key] = {name: closed_schema(item) for name, item in value.items()}
        elif key in _VALUES:
            closed[key] = value
        else:
            closed[key] = closed_schema(value, is_open=key in _JOINED and (is_joined or is_open))
    if "properties" in closed and not (is_open or is_joined or "patternProperties" in closed):
        closed.setdefault("additionalProperties", False)
    return closed


def least_length(schema: Mapping[str, Any]) -> int:
    """Return roughly how many bytes, and so at most how many tokens, the shortest text of a schema takes."""
    return _least(schema, schema, 0)


def _least(schema: Any, root: Mapping[str, Any], depth: int) -> int:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return 2
    if isinstance(reference := schema.get("$ref"), str):
        target: Any = root
        for key in reference.removeprefix("#").strip("/").split("/"):
            target = target.get(key, {}) if isinstance(target, Mapping) else {}
        return _least(target, root, depth + 1)
    options = schema.get("anyOf") or schema.get("oneOf")
    total = max((_least(item, root, depth + 1) for item in options), default=0) if options else 0
    total += sum(_least(item, root, depth + 1) for item in schema.get("allOf", ()))
    values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    total += max((len(json.dumps(value, ensure_ascii=False).encode()) for value in values), default=0)
    for name, item in schema.get("properties", {}).items():
        total += len(str(name).encode()) + 6 + _least(item, root, depth + 1)
    total += _count(schema, "minItems") * (2 + _least(schema.get("items", {}), root, depth + 1))
    return int(total) + _count(schema, "minLength") + 2


def _count(schema: Mapping[str, Any], key: str) -> int:
    value = schema.get(key, 0)
    return value if isinstance(value, int) else 0  # where llguidance has no use for a key it does not check it


def _check(lark: str, vocabulary: LLTokenizer) -> None:
    from llguidance import LLMatcher

    is_error, messages = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_lark(lark), vocabulary)
    if is_error:
        what = re.sub(r"^at \d+\(\d+\): ", "", messages[0].splitlines()[0])
        msg = f"This schema cannot be held to: {what}. Leave that out of the schema, or write it in another way."
        raise OptionError(msg)

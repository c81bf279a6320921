"""The grammar that holds an answer to tool calls or to a JSON schema, while the reasoning before it stays free.

Grammars are in the Lark dialect of llguidance. Whatever a model wants to write, only tokens that lead to a valid answer
are left to it, so every model can call a tool and fill a schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langnorm.chat.schemas import check_schema, closed_schema, plain_copy
from langnorm.chat.shortest_text import MOST_CHARACTERS, shortest_text
from langnorm.chat.tools import ToolUse
from langnorm.engines.requests import Grammar, ReasoningMarks
from langnorm.engines.vocabulary import get_vocabulary
from langnorm.errors import OptionError
from langnorm.text.marks import THINKING_TAGS
from langnorm.text.tool_calls import ToolForm

if TYPE_CHECKING:
    from llguidance import LLTokenizer
    from transformers import PreTrainedTokenizerBase

# Written as models have learnt to write it; free white space is where weak ones get lost.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def build_grammar(
    tokenizer: PreTrainedTokenizerBase,
    *,
    use: ToolUse,
    schema: Mapping[str, Any] | None,
    form: ToolForm,
    is_thinking: bool,
    may_think: bool,
    room: int | None = None,
) -> Grammar | None:
    """Return the grammar of an answer, or None where it may be any text.

    Args:
        tokenizer: The model's.
        use: The tools, and whether one of them must be called.
        schema: The JSON schema of an answer that is not a call; None where such an answer may be any text.
        form: How the model writes calls.
        is_thinking: Whether the prompt already opened the reasoning.
        may_think: Whether the model may open it.
        room: Most tokens that reasoning and answer may have together; None is no limit.

    Raises:
        MissingDependencyError: llguidance or jsonschema is not installed.
        OptionError: A schema is malformed, has something that no grammar can express, or no text that fits.
        ModelError: The tokenizer is of a kind that cannot be constrained.
    """
    if schema is None and not use.must_call:
        return None
    rules = _Rules(tokenizer, get_vocabulary(tokenizer))
    bodies = []
    if use.offered:
        bodies.append(rules.calls(use, form))
    if schema is not None and not use.must_call:
        bodies.append(rules.json(plain_copy(schema)))
    least_tokens = rules.num_tokens(min((body.shortest for body in bodies), key=len)) + 1  # the end-of-turn token
    marks = rules.reasoning_marks(is_thinking=is_thinking) if is_thinking or may_think else None
    if marks and not is_thinking and room is not None:
        num_marks = rules.num_tokens(marks.opening + marks.closing)
        marks = marks if room >= least_tokens + num_marks else None
    lark = rules.text(f"{rules.thinking(marks)}({' | '.join(body.rule for body in bodies)})")
    rules.check(lark)
    num_needed = least_tokens + (rules.num_tokens(marks.closing) if marks and is_thinking else 0)
    if room is not None and 0 < room < num_needed:  # a prompt that leaves no room at all is refused as such
        msg = (
            f"The shortest answer that may be given takes {num_needed} tokens, and `max_tokens` or the context leaves "
            f"{room}. Set `max_tokens` well above {num_needed}, or shorten the messages."
        )
        raise OptionError(msg)
    return Grammar(lark, least_tokens, marks)


@dataclass(frozen=True, slots=True)
class _Body:
    """What an answer may be.

    Attributes:
        rule: As the grammar has it.
        shortest: The shortest text of it.
    """

    rule: str
    shortest: str


class _Rules:
    """The rules of one grammar while it is written."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: LLTokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._rules: dict[str, str] = {}

    def text(self, start: str) -> str:
        """Return the grammar with this start."""
        return "\n".join(f"{name}: {body}" for name, body in {"start": start, **self._rules}.items()) + "\n"

    def num_tokens(self, text: str) -> int:
        """Return how many tokens a text takes; of a very long one, how many its beginning takes."""
        return len(self._vocabulary.tokenize_str(text[:MOST_CHARACTERS], parse_special=True))

    def reasoning_marks(self, *, is_thinking: bool) -> ReasoningMarks | None:
        """Return the marks of reasoning that this model's chat template knows."""
        pair = next((p for p in THINKING_TAGS if p[0] in str(self._tokenizer.chat_template)), None)
        return ReasoningMarks(*pair, is_open=is_thinking) if pair else None

    def thinking(self, marks: ReasoningMarks | None) -> str:
        """Return what may stand before the answer."""
        if marks is None:
            return ""
        opening, closing = self._mark(marks.opening), self._mark(marks.closing)
        if closing.startswith("<["):
            # Spelt out, the mark would end the reasoning for a reader, and not here.
            spelt = re.escape(marks.closing).replace("/", r"\/")
            self._rules["THOUGHT"] = f"/(?s:.*)/ & ~/(?s:.*){spelt}(?s:.*)/"
            thought = f"THOUGHT {closing}"
        else:
            self._rules[f"thought[suffix={closing}]"], thought = r"/(?s:.*)/", "thought"
        self._rules["GAP"] = r"/[ \n]{0,3}/"
        return f"{thought} GAP " if marks.is_open else f"({opening} {thought} GAP)? "

    def calls(self, use: ToolUse, form: ToolForm) -> _Body:
        """Return one call or several."""
        calls = [self._call(function, form) for function in use.offered]
        self._rules["one_call"] = " | ".join(call.rule for call in calls)
        shortest = min((call.shortest for call in calls), key=len)
        if form.is_bare:
            return _Body("one_call", shortest)
        opening = self._mark(form.opens)
        if form.is_list:
            more = '(", " one_call)*' if use.is_parallel else ""
            closing = self._mark(form.closes) if form.closes else ""
            return _Body(f'{opening} " "? "[" one_call {more} "]" {closing}', f"{form.opens}[{shortest}]{form.closes}")
        if form.closes:
            self._rules["call"] = f'{opening} "\\n" one_call "\\n" {self._mark(form.closes)}'
            rule = 'call ("\\n" call)*' if use.is_parallel else "call"
            return _Body(rule, f"{form.opens}\n{shortest}\n{form.closes}")
        self._rules["call"] = f"{opening} one_call"
        return _Body("call+" if use.is_parallel else "call", form.opens + shortest)

    def _call(self, function: Mapping[str, Any], form: ToolForm) -> _Body:
        """Return a call of one function, without the marks around it."""
        owner = f"The schema of the tool `{function['name']}`"
        parameters = plain_copy(function.get("parameters") or {"properties": {}}, owner)
        arguments = self.json(parameters | {"type": "object"}, owner)
        if form.name == "mistral_named":
            head = f"{function['name']}[ARGS]"
            rule = f"{_quoted(function['name'])} {self._mark('[ARGS]')} {arguments.rule}"
            return _Body(rule, head + arguments.shortest)
        name = json.dumps(function["name"], ensure_ascii=False)
        head = f'{{"name": {name}, "{form.arguments_key}": '
        return _Body(f'{_quoted(head)} {arguments.rule} "}}"', f"{head}{arguments.shortest}}}")

    def json(self, schema: Mapping[str, Any], owner: str = "This schema") -> _Body:
        """Return a rule for texts of a schema, which is a plain copy."""
        check_schema(schema, owner)
        name = f"json_{len(self._rules)}"
        closed = closed_schema(schema) | {"x-guidance": _LAYOUT}
        self._rules[name] = f"%json {json.dumps(closed, ensure_ascii=False)}"
        shortest = shortest_text(schema)
        if shortest is None:
            msg = f"{owner} cannot be held to: its values have no end. Let what refers to itself be left out."
            raise OptionError(msg)
        return _Body(name, shortest)

    def check(self, lark: str) -> None:
        """Raise `OptionError` if llguidance has no use for a grammar."""
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_lark(lark)
        is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar, self._vocabulary)
        if is_error:
            what = re.sub(r"^at \d+\(\d+\): ", "", messages[0].splitlines()[0])
            msg = f"This schema cannot be held to: {what}. Leave that out of the schema, or write it in another way."
            raise OptionError(msg)

    def _mark(self, mark: str) -> str:
        """Return a mark as the grammar names it: by its id where it is a token of its own that no text spells."""
        ids = self._tokenizer(mark, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and self._vocabulary.is_special_token(ids[0]):
            return f"<[{ids[0]}]>"
        return _quoted(mark)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

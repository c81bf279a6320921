"""Reading an answer takes time in proportion to its length, whatever it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from langnorm.text.harmony import HarmonyReader
from langnorm.text.readers import PieceReader, Reader, TagReader, parse_answer
from langnorm.text.template_reader import TemplateReader
from langnorm.text.tool_calls import HARMONY, HERMES, ToolForm, detect_tool_form, offered_tools
from tests.support.operations import calls_made
from tests.support.tool_forms import FAMILIES, TOOLS

HOSTILE: dict[str, tuple[str, Callable[[int], str]]] = {
    "white space": ("qwen", lambda n: " " * n),
    "white space after text": ("qwen", lambda n: "a" + "\n" * n),
    "white space after a mark": ("qwen", lambda n: "<tool_call>" + " " * n),
    "white space after a call": ("qwen", lambda n: FAMILIES["qwen"].one[:-12] + " " * n + "</tool_call>"),
    "marks": ("qwen", lambda n: "<tool_call>" * (n // 11)),
    "beginnings of marks": ("qwen", lambda n: "<tool_cal" * (n // 9)),
    "marks and braces": ("qwen", lambda n: "<tool_call>{" * (n // 12)),
    "marks and half a name": ("qwen", lambda n: '<tool_call>{"name": "' * (n // 20)),
    "a long name": ("qwen", lambda n: '<tool_call>{"name": "' + "a" * n),
    "a long bare name": ("llama", lambda n: '{"name": "' + "a" * n),
    "marks in a string": ("qwen", lambda n: '<tool_call>{"a": "</tool_call>' * (n // 30)),
    "marks in an escaped string": ("qwen", lambda n: '<tool_call>{"\\"</tool_call>' * (n // 26)),
    "braces": ("qwen", lambda n: "{" * n),
    "braces after a mark": ("qwen", lambda n: "<tool_call>" + "{" * n),
    "brackets in a fence": ("qwen", lambda n: "```json\n" + "[" * n),
    "bare calls": ("qwen", lambda n: '{"name": "clock", "arguments": {}}\n' * (n // 35)),
    "bare calls in a row": ("llama", lambda n: '{"name": "clock", "parameters": {}}; ' * (n // 37)),
    "calls": ("qwen", lambda n: '<tool_call>{"name": "clock", "arguments": {}}</tool_call>' * (n // 56)),
    "ends of arguments": ("qwen3_coder", lambda n: "<tool_call><function=f><parameter=a>" + "</parameter>" * (n // 12)),
    "arguments": ("qwen3_coder", lambda n: "<tool_call><function=f>" + "<parameter=a>b</parameter>" * (n // 26)),
    "values of GLM": ("glm", lambda n: "<tool_call>f<arg_key>a</arg_key><arg_value>" + "</arg_value> " * (n // 13)),
    "python": ("lfm2", lambda n: "<|tool_call_start|>[" + "f(a='b'), " * (n // 10)),
    "backslashes in python": (
        "lfm2",
        lambda n: "<|tool_call_start|>[f(a='" + "\\\\" * (n // 2) + "')]<|tool_call_end|>",
    ),
    "brackets in python": ("lfm2", lambda n: "<|tool_call_start|>[f(a=" + "(" * n),
    "keys of Gemma": ("functiongemma", lambda n: "<start_function_call>call:f{" + "a:," * (n // 3) + "}"),
    "channels": ("harmony", lambda n: "<|channel|>" * (n // 11)),
    "messages": ("harmony", lambda n: "<|channel|>analysis<|message|>a<|end|>" * (n // 38)),
    "headers": ("harmony", lambda n: "<|channel|>" + "to=a " * (n // 5)),
    "half a closing mark in a thought": ("qwen", lambda n: "<think>" + "</thin" * (n // 6)),
    "white space in a thought": ("qwen", lambda n: "<think>a" + " " * n),
    **{
        f"calls of {name}": (name, lambda n, one=family.one: one * (n // len(one))) for name, family in FAMILIES.items()
    },
}


def new_reader(form: ToolForm) -> Reader:
    """Returns a reader of one answer of a family."""
    return (
        PieceReader(HarmonyReader("", offered_tools(TOOLS))) if form is HARMONY else TagReader(form=form, tools=TOOLS)
    )


def pieces_of(text: str) -> list[str]:
    """Returns a text in pieces of the size of tokens."""
    return [text[start : start + 4] for start in range(0, len(text), 4)]


@pytest.mark.parametrize("name", HOSTILE)
def test_work_grows_with_the_length(name: str) -> None:
    """A letter costs the same in four times the text, and not four times as much."""
    family, make = HOSTILE[name]
    form = detect_tool_form(FAMILIES[family].template)

    def work_per_letter(size: int) -> float:
        text = make(size)
        pieces = pieces_of(text)
        return calls_made(lambda: parse_answer(new_reader(form), pieces)) / len(text)

    work_per_letter(600)  # fills the caches of patterns
    assert work_per_letter(2_400) < 1.05 * work_per_letter(600)


@pytest.mark.parametrize("name", ["white space", "marks in a string", "python", "arguments"])
def test_long_answers_are_read_at_once(name: str) -> None:
    """Nothing inside of a single operation grows with the square of the length either."""
    family, make = HOSTILE[name]
    form = detect_tool_form(FAMILIES[family].template)
    pieces = pieces_of(make(100_000))
    started = time.process_time()
    answer = parse_answer(new_reader(form), pieces)
    assert time.process_time() - started < 10  # 2 as it is; a quadratic regular expression takes minutes
    assert len(answer.segments) > 0 or name == "white space"


class CountingParser:
    """A parser of responses that notes how much text it copies."""

    def __init__(self, parser: Any) -> None:
        self.finalize = parser.finalize
        self._parser = parser
        self.num_seen = self.num_copied = 0

    def feed(self, text: str) -> Any:
        """Does as the parser does."""
        self.num_seen += len(text)
        self.num_copied += self.num_seen
        return self._parser.feed(text)


def test_a_response_template_copies_text_in_proportion(tokenizer: Any) -> None:
    """The parser of transformers copies all of its text each time; letter by letter that would be its square."""
    template = {
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {"content": {"close": "<|im_end|>", "content": "text"}},
    }
    text = "It is sunny in Oslo. " * 2_000
    parser = CountingParser(tokenizer.get_response_parser(template, prefix="<|im_start|>assistant\n"))
    answer = parse_answer(PieceReader(TemplateReader(parser)), pieces_of(text))  # type: ignore[arg-type]
    assert answer.text("answer") == text.strip()
    assert parser.num_copied < 600 * len(text)


def test_hermes_is_the_form_of_these() -> None:
    """The hostile texts are read in the form that they are made for."""
    assert detect_tool_form(FAMILIES["qwen"].template) is HERMES

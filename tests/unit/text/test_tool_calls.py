"""Calls are read in every family's form, however the text is cut, and what is no call is never lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from langchain_core.utils.json import parse_partial_json
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.text.marks import THINKING_TAGS
from langnorm.text.readers import ParsedAnswer, PieceReader, TagReader, parse_answer, reader_factory
from langnorm.text.reasoning import Segment
from langnorm.text.template_reader import TemplateReader
from langnorm.text.tool_calls import (
    HERMES,
    JSON,
    LLAMA,
    MISTRAL,
    MISTRAL_NAMED,
    UNKNOWN,
    CallChunk,
    ToolForm,
    detect_tool_form,
)

FORMS = {"hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL, "mistral_named": MISTRAL_NAMED}
arguments = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(alphabet='a{}[]"\\,:<>/\n日', max_size=6),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True)


def written(form: ToolForm, calls: list[tuple[str, dict[str, Any]]]) -> str:
    """Returns calls as models of a family write them."""
    objects = [json.dumps({"name": name, form.arguments_key: args}, ensure_ascii=False) for name, args in calls]
    match form.name:
        case "hermes":
            return "\n".join(f"<tool_call>\n{item}\n</tool_call>" for item in objects)
        case "llama":
            return "; ".join(objects)
        case "mistral":
            return f"[TOOL_CALLS] [{', '.join(objects)}]"
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{json.dumps(args, ensure_ascii=False)}" for name, args in calls)


def valid(reading: ParsedAnswer) -> list[tuple[str | None, Any]]:
    """Returns names and arguments of the calls that have no error."""
    return [(call.name, call.arguments) for call in reading.calls if call.error is None]


def read_text(form: ToolForm, text: str, size: int = 10**6) -> ParsedAnswer:
    """Returns what a reader makes of a text in pieces of a size."""
    return parse_answer(TagReader(form=form), [text[i : i + size] for i in range(0, len(text), size)])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(calls=st.lists(st.tuples(names, arguments), min_size=1, max_size=3), size=st.integers(1, 30))
def test_calls_are_read_back(form: ToolForm, calls: list[tuple[str, dict[str, Any]]], size: int) -> None:
    """Whatever the arguments hold, unless it is the family's own mark, in pieces of any size."""
    text = written(form, calls)
    reading = read_text(form, text, size)
    assert valid(reading) == calls
    assert reading.text("answer") == ""
    assert reading.text("tool_call") == text.replace("\n<tool_call>", "<tool_call>")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(text=st.text(alphabet='<tool_call>{}[]"\n:/TOL_CALS|python_tag name argumets,1', max_size=60))
def test_nothing_is_lost(form: ToolForm, text: str) -> None:
    """Whatever a model writes, all that is visible is in the answer, in a call or in an invalid call."""
    assume(not any(mark in text for pair in THINKING_TAGS for mark in pair))
    whole = read_text(form, text)
    by_letter = read_text(form, text, 1)
    for part in ("answer", "tool_call", "reasoning"):
        assert by_letter.text(part) == whole.text(part)
    shown = "".join(segment.text for segment in whole.segments)
    assert sorted("".join(shown.split())) == sorted("".join(text.split()))
    assert [(c.name, c.arguments, c.raw) for c in by_letter.calls] == [
        (c.name, c.arguments, c.raw) for c in whole.calls
    ]


@pytest.mark.parametrize(
    ("form", "text", "name", "args"),
    [
        (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', "f", {"a": 1}),
        (HERMES, '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "f", {"a": 1}),
        (HERMES, '<tool_call>{"name": "f"}</tool_call>', "f", {}),
        (HERMES, '<tool_call>\n{"name": "f", "arguments": {"a": 1}}', "f", {"a": 1}),
        (HERMES, '<tool_call>{"function": {"name": "f", "arguments": {}}}</tool_call>', "f", {}),
        (LLAMA, '{"type": "function", "name": "f", "parameters": {"a": 1}}', "f", {"a": 1}),
        (LLAMA, '<|python_tag|>{"name": "f", "parameters": {"a": 1}}', "f", {"a": 1}),
        (LLAMA, '{"parameters": {"a": 1}, "name": "f"}', "f", {"a": 1}),
        (MISTRAL_NAMED, '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"a": 1}', "f", {"a": 1}),
    ],
)
def test_deviations_that_are_understood(form: ToolForm, text: str, name: str, args: dict[str, Any]) -> None:
    """Another order, arguments as text, no arguments, no closing mark."""
    assert valid(read_text(form, text)) == [(name, args)]
    assert valid(read_text(form, text, 1)) == [(name, args)]


@pytest.mark.parametrize(
    "text",
    ["<tool_call>f(1)</tool_call>", '<tool_call>{"name": 3}</tool_call>', "<tool_call>{}</tool_call>", "<tool_call>[]"],
)
def test_what_is_no_call_keeps_its_text(text: str) -> None:
    """The raw text of an invalid call is all that was written, marks included."""
    (call,) = read_text(HERMES, text).calls
    assert (call.name, call.arguments, call.raw) == (None, None, text)
    assert call.error


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "\\q", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
        f'<tool_call>{{"name": "f", "arguments": {{"a": {"9" * 5000}}}}}</tool_call>',
        f'<tool_call>{{"name": "f", "arguments": {{"a": {"[" * 100_000}{"]" * 100_000}}}}}</tool_call>',
    ],
    ids=["escape", "nan", "digits", "depth"],
)
def test_what_no_message_can_carry_is_an_invalid_call(text: str) -> None:
    """Whatever a model writes, reading it raises nothing."""
    (call,) = read_text(HERMES, text).calls
    assert call.error
    assert call.arguments is None


def test_json_that_calls_nothing_is_an_answer() -> None:
    """A family without marks may still answer in JSON."""
    for text in ('{"setup": "why", "punchline": "so"}', '{"name": "Anna", "age": 3}', "{", '{"name'):
        for size in (1, 100):
            reading = read_text(LLAMA, text, size)
            assert (reading.text("answer"), reading.calls) == (text, [])


def test_ids_are_as_the_family_wants_them() -> None:
    """Mistral's templates insist on nine letters and digits."""
    (call,) = read_text(MISTRAL, written(MISTRAL, [("f", {})])).calls
    assert len(call.id) == 9
    assert call.id.isalnum()
    first, second = read_text(HERMES, written(HERMES, [("f", {}), ("f", {})])).calls
    assert first.id != second.id


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("{{ '<tool_call>' }}", HERMES),
        ("[TOOL_CALLS][", MISTRAL),
        ("[TOOL_CALLS]{{ name }}[ARGS]", MISTRAL_NAMED),
        ('<|start_header_id|>{"name": .., "parameters": ..}', LLAMA),
        ('{"name": .., "arguments": ..}', JSON),
        ("", UNKNOWN),
    ],
)
def test_the_form_is_told_by_the_template(template: str, form: ToolForm) -> None:
    """A model writes calls as its template shows them."""
    assert detect_tool_form(template) is form


QWEN_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"\s*<\|im_end\|>", "content": "text"},
    },
}


def template_reading(
    tokenizer: Any, text: str, size: int, template: Any = QWEN_TEMPLATE
) -> tuple[list[Any], ParsedAnswer]:
    """Returns all items and the reading of a reader by response template."""
    parser = tokenizer.get_response_parser(template, prefix="<|im_start|>assistant\n", tools=[])
    reader = PieceReader(TemplateReader(parser))
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    items = [item for token, piece in enumerate(pieces) for item in reader.feed(token, piece)]
    items += reader.finish()
    return items, ParsedAnswer([item for item in items if isinstance(item, Segment)], reader.calls)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_response_template_is_followed(tokenizer: Any, size: int) -> None:
    """What came with the tokenizer decides, in pieces of any size."""
    text = (
        '<think>\nwhy\n</think>\n\nI add.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call><|im_end|>'
    )
    items, reading = template_reading(tokenizer, text, size)
    assert reading.text("reasoning") == "why"
    assert reading.text("answer") == "I add."
    assert valid(reading) == [("f", {"a": 1}), ("g", {})]
    assert [item.name for item in items if isinstance(item, CallChunk)] == ["f", "g"]


EACH_TEMPLATE = QWEN_TEMPLATE | {
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "content": "json",
            "transform_each": True,
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}},
        },
        "content": {"close_pattern": r"\s*<\|im_end\|>", "content": "text", "optional": False},
    }
}


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("template", [QWEN_TEMPLATE, EACH_TEMPLATE])
@pytest.mark.parametrize("body", ["{oh no}", '[{"name": "f"}]', '[{"name": 1}]', "[" * 3000])
def test_what_a_response_template_cannot_read_is_kept(tokenizer: Any, size: int, template: Any, body: str) -> None:
    """What is malformed, incomplete or without end between the marks is an invalid call, and the answer goes on."""
    _, reading = template_reading(tokenizer, f"Look: <tool_call>{body}</tool_call> done", size, template)
    (call,) = reading.calls
    assert call.error
    assert body in call.raw
    assert reading.text("answer").startswith("Look:")


def test_nothing_is_a_call_where_a_response_template_needs_an_answer(tokenizer: Any, monkeypatch: Any) -> None:
    """One that was cut off before it is no error."""
    monkeypatch.setattr(tokenizer, "response_template", EACH_TEMPLATE, raising=False)
    reading = parse_answer(reader_factory(tokenizer, [], [], UNKNOWN, is_thinking=False)(), [""])
    assert (reading.segments, reading.calls) == ([], [])


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "f", "arguments": {"path": "/tmp/a',
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}',
        "<tool_call>",
        "<tool_call><function=f>",
    ],
)
def test_a_call_that_breaks_off_is_invalid_for_a_response_template(tokenizer: Any, text: str, size: int) -> None:
    """Also for whoever joins the chunks: no text of it is the beginning of an object."""
    items, reading = template_reading(tokenizer, text, size)
    assert all(call.error for call in reading.calls)
    chunks = [item for item in items if isinstance(item, CallChunk)]
    assert not any(isinstance(parse_partial_json_or_none(chunk.arguments), dict) for chunk in chunks)


def parse_partial_json_or_none(text: str) -> Any:
    """Returns what LangChain makes of a broken JSON text."""
    try:
        return parse_partial_json(text)
    except ValueError:
        return None


XML_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open_pattern": r"<tool_call>\s*<function=(?P<name>[^>\n]+)>",
            "close_pattern": r"</function>\s*</tool_call>",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"},
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"close_pattern": r"<\|im_end\|>", "content": "text"},
    },
}


@pytest.mark.parametrize("size", [1, 1000])
def test_half_of_the_arguments_are_no_call_for_a_response_template(tokenizer: Any, size: int) -> None:
    """Tags that are whole say nothing of those that would have come."""
    arguments = "<parameter=a>\n1\n</parameter>\n<parameter=b>\n2\n</parameter>"
    text = f"<tool_call>\n<function=f>\n{arguments}\n</function>\n</tool_call>"
    _, whole = template_reading(tokenizer, text, size, XML_TEMPLATE)
    assert valid(whole) == [("f", {"a": "1", "b": "2"})]
    for end in range(len("<tool_call>\n<function=f>"), len(text)):
        _, part = template_reading(tokenizer, text[:end], size, XML_TEMPLATE)
        assert valid(part) == []


@given(
    text=st.lists(
        st.sampled_from(
            ["<think>", "</think>", "<tool_call>", "</tool_call>", '{"name": "f", "arguments": {}}', "<|im_end|>"]
        )
        | st.text(alphabet='ab {}"\n<', max_size=40),
        max_size=10,
    ).map("".join),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_pieces_say_what_the_whole_says_by_a_response_template(text: str, sizes: list[int]) -> None:
    """However an answer is cut."""
    text *= 8  # long enough to be passed on in more than letters
    tokenizer = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    pieces, rest = [], text
    for size in sizes:
        pieces, rest = [*pieces, rest[:size]], rest[size:]

    def told(pieces: list[str]) -> Any:
        reader = PieceReader(
            TemplateReader(tokenizer.get_response_parser(QWEN_TEMPLATE, prefix="<|im_start|>assistant\n"))
        )
        answer = parse_answer(reader, pieces)
        texts = [answer.text("reasoning"), answer.text("answer"), answer.text("tool_call")]
        return texts, [(call.name, call.arguments, call.raw) for call in answer.calls]

    assert told([*pieces, rest]) == told([text]) == told(list(text))

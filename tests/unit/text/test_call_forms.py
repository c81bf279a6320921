"""Calls are read as each family of models writes them, and nothing that only looks like one is lost."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langnorm.text.harmony import HarmonyReader
from langnorm.text.readers import ParsedAnswer, PieceReader, TagReader, parse_answer
from langnorm.text.tool_calls import (
    HARMONY,
    HERMES,
    LLAMA,
    UNKNOWN,
    CallChunk,
    ToolForm,
    detect_tool_form,
    offered_tools,
)
from tests.support.tool_forms import FAMILIES, TOOLS

ONE = [("weather", {"city": "Oslo", "days": 2, "parts": ["a", "b"]})]
TWO = [("weather", {"city": "Oslo"}), ("clock", {})]


def new_reader(form: ToolForm) -> Any:
    """Returns a reader of one answer of a family."""
    return (
        PieceReader(HarmonyReader("", offered_tools(TOOLS))) if form is HARMONY else TagReader(form=form, tools=TOOLS)
    )


def read(form: ToolForm, text: str) -> ParsedAnswer:
    """Returns what is made of a text that comes at once."""
    return parse_answer(new_reader(form), [text])


def valid(answer: ParsedAnswer) -> list[tuple[str | None, Any]]:
    """Returns names and arguments of the calls that have no error."""
    return [(call.name, call.arguments) for call in answer.calls if call.error is None]


def invalid(answer: ParsedAnswer) -> list[str]:
    """Returns the texts of the calls that have one."""
    return [call.raw for call in answer.calls if call.error is not None]


def told(form: ToolForm, pieces: list[str]) -> Any:
    """Returns all that is told of an answer in pieces, joined: the text of each part, the calls, and their chunks."""
    reader = new_reader(form)
    events = [event for number, piece in enumerate(pieces) for event in reader.feed(number, piece)]
    events += reader.finish()
    texts: dict[str, str] = {}
    chunks: dict[int, tuple[str | None, str]] = {}
    for event in events:
        if isinstance(event, CallChunk):
            name, arguments = chunks.get(event.index, (None, ""))
            chunks[event.index] = (name or event.name, arguments + event.arguments)
        else:
            texts[event.part] = texts.get(event.part, "") + event.text
    return texts, [(call.name, call.arguments, call.raw, call.error) for call in reader.calls], chunks


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_read(name: str) -> None:
    """One call with arguments of three types, and two calls in one answer, with text before them."""
    family = FAMILIES[name]
    form = detect_tool_form(family.template)
    assert form is not UNKNOWN
    for text, calls in ((family.one, ONE), (family.two, TWO)):
        answer = read(form, text)
        assert valid(answer) == calls
        assert (invalid(answer), answer.text("answer")) == ([], "")
    if form.opens and text.startswith(form.opens):
        answer = read(form, f"I look.\n\n{family.one}\n")
        assert (valid(answer), answer.text("answer")) == (ONE, "I look.")


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_of_calls_differ(name: str) -> None:
    """Results are told apart by them."""
    family = FAMILIES[name]
    first, second = read(detect_tool_form(family.template), family.two).calls
    assert first.id != second.id
    if name == "kimi":
        assert first.id == "functions.weather:0"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_call_that_breaks_off_is_never_valid(name: str) -> None:
    """Wherever `max_tokens` cuts: an argument too few is another call."""
    family = FAMILIES[name]
    form = detect_tool_form(family.template)
    for end in range(len(family.one)):
        for call in read(form, family.one[:end]).calls:
            assert call.error is not None or (call.name, call.arguments) == ONE[0]


fragments = st.sampled_from(
    [
        *(family.one for family in FAMILIES.values()),
        *(family.two for family in FAMILIES.values()),
        *(
            "<tool_call>",
            "</tool_call>",
            "<|python_tag|>",
            "[TOOL_CALLS]",
            "<|tool_call|>",
            "[ARGS]",
            "```json\n",
            "```",
        ),
        *("<think>", "</think>", "<|channel|>", "<|message|>", "analysis", "final", "<|end|>", "<|start|>assistant"),
        *("{", "}", "[", "]", '"', "\\", "(", ")", ",", ";", ":", "<", ">", "'", "\n", " ", "weather", "clock", "f"),
        *("<function=", "<parameter=", "</parameter>", "</function>", "<arg_key>", "</arg_value>", "call:", "<escape>"),
        *('{"name": "weather", "arguments": {', '"city": "Oslo"', '{"arguments": {}, "name": "clock"}', "I look.", "é"),
    ]
)
answers = st.lists(fragments, max_size=8).map("".join)


@pytest.mark.parametrize(
    "form",
    dict.fromkeys([*(detect_tool_form(family.template) for family in FAMILIES.values()), UNKNOWN]),
    ids=lambda form: form.name,
)
@given(text=answers, places=st.lists(st.integers(0, 300), max_size=12))
@example(text='<tool_call>\n{"name": "weather", "arguments": {"city": "a</tool_call>b"}}\n</tool_call>', places=[70])
def test_pieces_say_what_the_whole_says(form: ToolForm, text: str, places: list[int]) -> None:
    """However an answer is cut, its text, calls and chunks are the same; and nothing visible is lost."""
    cuts = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    whole = told(form, [text])
    assert told(form, [text[a:b] for a, b in pairwise(cuts)]) == whole
    assert told(form, list(text)) == whole
    texts, calls, chunks = whole
    assert [(name, raw) for name, _, raw, _ in calls] == [chunks[number] for number in range(len(calls))]
    if form is not HARMONY:
        shown = "".join(texts.values())
        marks = ("<think>", "</think>")
        assert len(visible(text)) - len(visible(shown)) <= sum(len(mark) * text.count(mark) for mark in marks)


def visible(text: str) -> str:
    """Returns a text without white space."""
    return "".join(text.split())


CALL = '{"name": "weather", "arguments": {"city": "Oslo"}}'


@pytest.mark.parametrize("form", [HERMES, LLAMA, HARMONY, UNKNOWN], ids=lambda form: form.name)
@pytest.mark.parametrize(
    "text",
    [
        CALL,
        f" {CALL}\n",
        f"```json\n{CALL}\n```",
        f"```\n{CALL}\n```\n",
        f"[{CALL}]",
        f"<tools>\n{CALL}\n</tools>",
        '{"arguments": {"city": "Oslo"}, "name": "weather"}',
        '{"type": "function", "function": {"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}}',
        '{"name": "weather", "parameters": {"city": "Oslo"}}',
        '[weather(city="Oslo")]',
    ],
)
def test_an_answer_that_is_nothing_but_a_call_is_one(form: ToolForm, text: str) -> None:
    """In any family, also in a code fence, where it names a tool that is offered."""
    answer = read(form, text)
    assert valid(answer) == [("weather", {"city": "Oslo"})]
    assert answer.text("answer") == ""


def test_several_calls_without_marks_are_several() -> None:
    """As a list, or one after the other."""
    second = '{"name": "clock", "arguments": {}}'
    for text in (f"[{CALL}, {second}]", f"{CALL}\n{second}", f"```json\n{CALL}\n{second}\n```"):
        assert valid(read(HERMES, text)) == TWO


@pytest.mark.parametrize("form", [HERMES, HARMONY, UNKNOWN], ids=lambda form: form.name)
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Anna", "arguments": {"city": "Oslo"}}',
        '{"name": "weather", "city": "Oslo"}',
        '{"name": "weather", "arguments": "Oslo"}',
        f"{CALL} is how it is called.",
        f"It is called so: {CALL}",
        f"```json\n{CALL}\n```\nThis calls it.",
        '{"name": "weather", "arguments": {"city": "Os',
        "```python\nprint(1)\n```",
        '[{"name": "weather", "arguments": {}}, {"name": "other", "arguments": {}}]',
        "[other(city=1)]",
        "[weather(1)]",
        "[1, 2, 3]",
    ],
)
def test_json_that_calls_no_offered_tool_is_an_answer(form: ToolForm, text: str) -> None:
    """So is a call with anything beside it, which only shows how one is written, and one that breaks off."""
    answer = read(form, text)
    assert (answer.text("answer"), answer.calls) == (text, [])


def test_a_closing_mark_inside_of_an_argument_is_text() -> None:
    """The call goes on, in each notation that can tell."""
    for family, text in {
        "qwen": '<tool_call>\n{"name": "weather", "arguments": {"city": "a </tool_call> b"}}\n</tool_call>',
        "qwen3_coder": "<tool_call>\n<function=weather>\n<parameter=city>\na </tool_call> b\n</parameter>\n"
        "</function>\n</tool_call>",
        "glm": "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>a </tool_call> b</arg_value>\n</tool_call>",
        "lfm2": "<|tool_call_start|>[weather(city='a <|tool_call_end|> b')]<|tool_call_end|>",
        "phi4": '<|tool_call|>[{"arguments": {"city": "a <|/tool_call|> b"}, "name": "weather"}]<|/tool_call|>',
    }.items():
        form = detect_tool_form(FAMILIES[family].template)
        city = f"a {form.closes} b"
        answer = read(form, f"{text}\nDone.")
        assert valid(answer) == [("weather", {"city": city})]
        assert answer.text("answer") == "Done."


def test_a_string_that_nobody_closed_does_not_swallow_the_answer() -> None:
    """A closing mark on a line of its own ends the call."""
    text = '<tool_call>\n{"name": "weather", "arguments": {"city": "5" wide"}}\n</tool_call>\nDone.'
    answer = read(HERMES, text)
    assert answer.text("answer") == "Done."
    assert len(invalid(answer)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Tools are called with `<tool_call>` and then JSON. That is all.",
        "Write <tool_call> and then the JSON.",
        "<tool_call></tool_call>",
        "`<tool_call>`",
        "<tool_call><tool_call><tool_call> again",
    ],
)
def test_an_answer_that_names_a_mark_goes_on(text: str) -> None:
    """A mark with no call after it is text, and so is what follows."""
    answer = read(HERMES, text)
    assert (answer.text("answer"), answer.calls) == (text, [])


def test_a_call_goes_on_after_a_mark_that_was_none() -> None:
    """And keys that say nothing of the call are passed over."""
    text = f'I write `<tool_call>`:\n<tool_call>\n{CALL[:-1]}, "id": "x"}}\n</tool_call>'
    answer = read(HERMES, text)
    assert answer.text("answer") == "I write `<tool_call>`:"
    assert valid(answer) == [("weather", {"city": "Oslo"})]


@pytest.mark.parametrize("rest", [" oh no", ', {"name": 3}', ", 3"])
def test_what_follows_a_call_inside_of_its_marks_is_not_lost(rest: str) -> None:
    """It is an invalid call."""
    answer = read(HERMES, f"<tool_call>\n{CALL}{rest}\n</tool_call>")
    assert valid(answer) == [("weather", {"city": "Oslo"})]
    assert rest.strip(" ,") in "".join(invalid(answer))


@pytest.mark.parametrize(
    ("written", "days"),
    [("2", 2), ("2.0", 2), ("two", "two"), ("null", "null"), ("true", "true"), ("[2]", "[2]")],
)
def test_arguments_in_tags_have_the_types_of_the_schema(written: str, days: Any) -> None:
    """Where the text is of another type it stays a text, which the tool's own check names."""
    text = f"<tool_call>\n<function=weather>\n<parameter=days>\n{written}\n</parameter>\n</function>\n</tool_call>"
    assert valid(read(HERMES, text)) == [("weather", {"days": days})]


@pytest.mark.parametrize(
    "call",
    [
        "weather('Oslo')",
        "weather(**{'city': 1})",
        "weather(city=oslo)",
        "weather(city=1e999)",
        "weather(city=f'{x}')",
        "weather(city=" + "[" * 300 + "]" * 300 + ")",
        "weather(city=9" + "9" * 5000 + ")",
        "(lambda: 1)()",
        "weather(city=b'x')",
        "weather(city={1: 2})",
        "weather(city=1 if",
    ],
)
def test_python_that_is_no_plain_call_is_invalid(call: str) -> None:
    """Nothing is run, and nothing is raised."""
    answer = read(detect_tool_form("<|tool_call_start|>"), f"<|tool_call_start|>[{call}]<|tool_call_end|>")
    assert not valid(answer)
    assert call[:20] in "".join(invalid(answer)) + answer.text("answer")


def test_python_literals_become_json() -> None:
    """Negative numbers, tuples, words of JSON, and backslashes that escape nothing."""
    text = "<|tool_call_start|>[f(a=-1.5, b=(1, None), c=true, d={'x': [False]}, e='\\d\\n\\\\')]<|tool_call_end|>"
    arguments = {"a": -1.5, "b": [1, None], "c": True, "d": {"x": [False]}, "e": "\\d\n\\"}
    assert valid(read(detect_tool_form("<|tool_call_start|>"), text)) == [("f", arguments)]


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        (
            "<|channel|>analysis<|message|>I add. <|end|><|start|>assistant<|channel|>final<|message|>\nIt is 4."
            "<|return|>",
            "I add.",
            "It is 4.",
        ),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
            "<|start|>assistant<|channel|>analysis<|message|>b<|end|><|start|>assistant<|channel|>final<|message|>c",
            "a\nb",
            "I look.\nc",
        ),
        ("It is 4.", "", "It is 4."),
        ('{"a": 1}', "", '{"a": 1}'),
        ("<|channel|>analysis<|message|>half a th", "half a th", ""),
        ("<|channel|>fin", "", ""),
        ("", "", ""),
    ],
)
def test_channels_are_told_apart(text: str, reasoning: str, answer: str) -> None:
    """Of gpt-oss; without a channel what is written is the answer, as where it is held to a schema."""
    for tools in (None, offered_tools(TOOLS)):
        parsed = parse_answer(PieceReader(HarmonyReader("", tools)), list(text))
        assert (parsed.text("reasoning"), parsed.text("answer"), parsed.calls) == (reasoning, answer, [])


def test_a_prompt_may_have_begun_a_channel() -> None:
    """Then the answer goes on in it."""
    reader = HarmonyReader("<|channel|>analysis<|message|>", None)
    parsed = parse_answer(PieceReader(reader), ["I add.<|end|>", "<|start|>assistant<|channel|>final<|message|>4"])
    assert (parsed.text("reasoning"), parsed.text("answer")) == ("I add.", "4")


@pytest.mark.parametrize("body", ["print(1)", '{"city": "Oslo"} and more', ""])
def test_a_channel_with_a_bad_call_is_an_invalid_call(body: str) -> None:
    """Its text is kept, and the answer goes on."""
    text = f"<|channel|>commentary to=functions.weather<|message|>{body}<|call|><|start|>assistant"
    text += "<|channel|>final<|message|>Hm."
    answer = read(HARMONY, text)
    assert answer.text("answer") == "Hm."
    assert body in "".join(invalid(answer))
    assert len(invalid(answer)) == 1

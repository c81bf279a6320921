"""Calls of earlier turns reach every template, in the arrangement that it writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from transformers import AutoTokenizer

import langnorm.abacus
from langnorm.chat.prompts import render_prompt
from langnorm.errors import PromptError


def call(name: str, call_id: str, **arguments: Any) -> Any:
    """Returns a call as messages have it."""
    return {"name": name, "args": arguments, "id": call_id, "type": "tool_call"}


ONE = [
    HumanMessage("Weather in Oslo?"),
    AIMessage("", tool_calls=[call("weather", "1", city="Oslo")]),
    ToolMessage("sunny", tool_call_id="1"),
]
WITH_TEXT = [ONE[0], AIMessage("I look.", tool_calls=[call("weather", "1", city="Oslo")]), ONE[2]]
TWO = [
    ONE[0],
    AIMessage("", tool_calls=[call("weather", "1", city="Oslo"), call("clock", "2", zone="CET")]),
    ToolMessage("noon", tool_call_id="2"),
    ToolMessage("sunny", tool_call_id="1"),
]
_LOOP = (
    "{% for m in messages %}{% if m.role == 'user' %}<U>{{ m.content }}"
    "{% elif m.role == 'tool' %}<T>RESULT{{ m.content }}{% else %}<A>BODY{% endif %}{% endfor %}<A>"
)


def prompt_of(body: str, messages: list[BaseMessage], result: str = "") -> str:
    """Returns the prompt by a template that writes turns of the assistant so."""
    tokenizer = AutoTokenizer.from_pretrained(langnorm.abacus.path())
    tokenizer.chat_template = _LOOP.replace("BODY", body).replace("RESULT", result)
    return str(tokenizer.decode(render_prompt(tokenizer, messages, enable_thinking=True).ids))


CALLS = "{% for c in m.tool_calls %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}"
JOINED = "{{ '[' + m.tool_calls[0].function.name + ' ' + m.tool_calls[0].function.arguments + ']' }}"
JSON = '{"city": "Oslo"}'


@pytest.mark.parametrize(
    ("body", "written"),
    [
        ("{{ m.content }}" + CALLS, f"<A>[weather {JSON}]"),
        ("{% if m.content is none %}" + CALLS + "{% else %}{{ m.content }}{% endif %}", f"<A>[weather {JSON}]"),
        (
            "{% if m.tool_calls %}" + JOINED + "{% endif %}",
            f"[weather {JSON}]",
        ),
        (
            "{% if m['content'] is none %}" + JOINED + "{% else %}{{ m.content.split('x')[-1] }}{% endif %}",
            f"[weather {JSON}]",
        ),
        (
            "{{ m.content }}{% for c in m.tool_calls %}[{{ c.function.name }} {{ c.function.arguments }}]{% endfor %}",
            f"[weather {JSON}]",
        ),
        ("{{ m.content }}{% for c in m.tool_calls %}[{{ c.id }}]{% endfor %}", "[functions.weather:0]"),
        ("{{ m.content }}", json.dumps({"name": "weather", "arguments": {"city": "Oslo"}})),
    ],
    ids=["plain", "where content is none", "text", "deepseek", "dict", "id", "no place"],
)
def test_a_call_is_written_by_every_template(body: str, written: str) -> None:
    """By those that write it only where there is no content, that take arguments as a text, or that have no place."""
    for messages in (ONE, [*ONE, AIMessage("Sunny."), HumanMessage("Thanks")]):
        assert written in prompt_of(body, messages)


def test_text_beside_a_call_is_kept() -> None:
    """Where a template writes either, the text has a turn of its own."""
    body = "{% if m.content is none %}" + CALLS + "{% else %}{{ m.content }}{% endif %}"
    assert f"<A>I look.<A>[weather {JSON}]<T>sunny" in prompt_of(body, WITH_TEXT)


def test_a_template_that_takes_one_call_per_turn_gets_them_one_by_one() -> None:
    """Each with its result, in the order of the calls."""
    body = (
        "{% if m.tool_calls | length > 1 %}{{ raise_exception('one call at once') }}{% endif %}{{ m.content }}" + CALLS
    )
    expected = f'<A>[weather {JSON}]<T>sunny<A>[clock {{"zone": "CET"}}]<T>noon<A>'
    assert expected in prompt_of(body, TWO)


def test_results_go_by_the_ids_that_the_template_writes() -> None:
    """Kimi's template has the name in the id alone, also beside the result."""
    body = "{{ m.content }}{% for c in m.tool_calls %}[{{ c.id }}]{% endfor %}"
    expected = "<A>[functions.weather:0][functions.clock:1]<T>functions.clock:1=noon<T>functions.weather:0=sunny<A>"
    assert expected in prompt_of(body, TWO, result="{{ m.tool_call_id }}=")


def test_a_template_that_refuses_is_quoted() -> None:
    """Where no arrangement helps, the error is that of the first."""
    with pytest.raises(PromptError, match="no tools here"):
        prompt_of("{{ raise_exception('no tools here') }}", ONE)


def test_a_template_that_leaves_out_everything_is_refused() -> None:
    """The model would not know what it has called."""
    with pytest.raises(PromptError, match=r"leaves out the tool calls.*chat_template"):
        prompt_of("...", ONE)


def test_a_conversation_without_calls_is_rendered_as_it_is() -> None:
    """A name that occurs elsewhere is not taken for a call."""
    assert "<A>weather<A>" in prompt_of("{{ m.content }}", [HumanMessage("weather"), AIMessage("weather")])


def test_earlier_reasoning_has_the_name_that_the_template_reads() -> None:
    """gpt-oss reads `thinking`, and refuses it beside text in a turn with calls."""
    body = (
        "{% if m['thinking'] and m.content and m.tool_calls %}{{ raise_exception('both') }}{% endif %}"
        "({{ m['thinking'] }})" + CALLS + "{{ m.content }}"
    )
    thought = {"additional_kwargs": {"reasoning_content": "hm"}}
    calls = [call("weather", "1", city="Oslo")]
    assert "(hm)" in prompt_of(body, [ONE[0], AIMessage("", tool_calls=calls, **thought), ONE[2]])
    assert "()" in prompt_of(body, [ONE[0], AIMessage("I look.", tool_calls=calls, **thought), ONE[2]])

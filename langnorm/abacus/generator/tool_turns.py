"""The single messages of a conversation with tools: calls, thoughts and results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from langnorm.abacus.generator.tool_requests import fill, spoken
from langnorm.abacus.generator.tool_values import draw_value

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from langnorm.abacus.generator.tool_schemas import Call, Tool

Style = Literal["plain", "implied", "named"]
Message = dict[str, Any]


def user(text: str) -> Message:
    """Return a message of the user."""
    return {"role": "user", "content": text}


def assistant(content: str) -> Message:
    """Return a message of the assistant without calls."""
    return {"role": "assistant", "content": content}


def calling(calls: Sequence[Call]) -> Message:
    """Return the message in which the assistant calls tools."""
    tool_calls = [
        {"type": "function", "function": {"name": call.tool.name, "arguments": call.arguments}} for call in calls
    ]
    return {"role": "assistant", "content": "", "tool_calls": tool_calls}


def expected(calls: Sequence[Call]) -> str:
    """Return calls as the JSON text that evaluations compare."""
    return json.dumps([{"name": call.tool.name, "arguments": call.arguments} for call in calls], ensure_ascii=False)


def pairs(call: Call) -> str:
    """Return the arguments of a call as a thought lists them."""
    return ", ".join(f"{name} = {spoken(value)}" for name, value in call.arguments.items())


def look_through(tools: Sequence[Tool]) -> str:
    """Return what a thought says of the tools on offer: each one's name, what it gives, and its name again.

    From a request straight to the name of the tool that fits is too long a way for a small model, and so is comparing
    what is wanted with what a tool gives. After such a list, the name is what followed the same words before.
    """
    return " ".join(f"{tool.name}, {_gist(tool)}: {tool.name}." for tool in tools)


def _gist(tool: Tool) -> str:
    return tool.domain.gist if tool.description else "unknown"


def wants(rng: random.Random, gist: str) -> str:
    """Draw the beginning of a sentence that says what the user wants."""
    return rng.choice(("The user wants {0}", "The user asks for {0}", "This is about {0}")).format(gist)


def think_call(rng: random.Random, call: Call, style: Style, tools: Sequence[Tool]) -> str:
    """Draw the thought before one call, which depends on how the user asked; `tools` are those on offer, in order."""
    name = call.tool.name
    if style == "named":
        choice = rng.choice((f"The user names {name}.", f"The user asks for {name} by name."))
    else:
        choice = f"{look_through(tools)} {wants(rng, call.tool.domain.gist)}: {name}."
    return f"{choice} {pairs(call)}." if call.arguments else choice


def think_calls(rng: random.Random, calls: Sequence[Call], styles: Sequence[Style], tools: Sequence[Tool]) -> str:
    """Draw the thought before two or three calls."""
    number = {2: "two", 3: "three"}[len(calls)]
    parts = [
        rng.choice((f"The user asks for {number} things.", f"This takes {number} calls.", f"I need {number} calls."))
    ]
    if any(style != "named" for style in styles):
        parts.append(look_through(tools))
    named: set[str] = set()
    for place, (call, style) in enumerate(zip(calls, styles, strict=True)):
        name, lead = call.tool.name, "Then" if place else "First"
        is_named = style == "named" or name in named
        named.add(name)
        parts.append(f"{lead} {name}." if is_named else f"{lead} {call.tool.domain.gist}: {name}.")
        if call.arguments:
            parts.append(f"{pairs(call)}.")
    return " ".join(parts)


def draw_result(rng: random.Random, call: Call) -> tuple[str, str]:
    """Draw what a tool returns for a call and the sentence that reports it."""
    outcome = call.tool.domain.outcome
    values = {key: draw_value(rng, pool) for key, pool in outcome.fields.items()}
    # An answer may only use optional arguments that were given; the tables never use any.
    answer = fill(rng.choice(outcome.answers), call, **values)
    draw = rng.random()
    if draw < 0.2:
        return fill(rng.choice(outcome.answers), call, **values), answer
    if len(values) == 1 and draw < 0.65:
        (value,) = values.values()
        if rng.random() < 0.12 and call.arguments:
            inside = ", ".join(spoken(value) for value in call.arguments.values())
            answer = rng.choice(("{0}({1}) is {2}.", "The value of {0}({1}) is {2}.")).format(
                call.tool.name, inside, value
            )
        return (value if isinstance(value, str) else json.dumps(value)), answer
    if draw < 0.75:
        return ", ".join(f"{key}: {value}" for key, value in values.items()), answer
    return json.dumps(values, ensure_ascii=False), answer


def tool_message(rng: random.Random, call: Call, content: str) -> Message:
    """Return the message of a tool, half the time with its name."""
    message = {"role": "tool", "content": content}
    return message | {"name": call.tool.name} if rng.random() < 0.5 else message

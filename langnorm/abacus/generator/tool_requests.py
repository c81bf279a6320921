"""What users say to have a tool called: plainly, by implication, or by naming the tool."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from langnorm.abacus.generator.tool_schemas import Call, Tool
from langnorm.abacus.generator.tool_values import draw_value
from langnorm.abacus.generator.tool_wordings import WORDINGS

if TYPE_CHECKING:
    import random

    from langnorm.abacus.generator.tool_domains import Argument

# How the values of one tool are joined when it is to be called for each of them.
_PAIRS = ("{0} and also {1}", "{0} & {1}")
_PAIR_OF_PLACES = "{0} and in {1}"


def draw_call(rng: random.Random, tool: Tool, optional_share: float = 0.35) -> Call:
    """Draw values for a call of `tool`, each optional argument being given with `optional_share`."""
    values: dict[str, Any] = {}
    for argument in tool.domain.arguments:
        if argument.required or rng.random() < optional_share:
            value = rng.choice(argument.choices) if argument.kind == "enum" else draw_value(rng, argument.pool)
            if argument.pool != "integer" and value in values.values():
                value = rng.choice(argument.choices) if argument.kind == "enum" else draw_value(rng, argument.pool)
            values[argument.slot] = value
    return Call(tool, values)


def spoken(value: Any) -> str:
    """Return a value as it is said in a sentence."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"{', '.join(value[:-1])} and {value[-1]}"
    return str(value)


def ask(rng: random.Random, call: Call, *, implied: bool) -> str:
    """Ask for a call by what it does, without the name of the tool."""
    domain = call.tool.domain
    template = rng.choice(domain.implied if implied else domain.plain)
    text = fill(template, call)
    for argument in domain.arguments:
        if not argument.required and argument.slot in call.values:
            text = _append(text, _phrase(rng, argument, call))
    return text


def fill(template: str, call: Call, **more: Any) -> str:
    """Put a call's values, and `more`, into the slots of a template."""
    values = {slot: spoken(value) for slot, value in call.values.items()}
    return template.format(**(values | {slot: spoken(value) for slot, value in more.items()}))


def _phrase(rng: random.Random, argument: Argument, call: Call) -> str:
    negative = argument.kind == "boolean" and not call.values[argument.slot]
    return fill(rng.choice(argument.negative_phrases if negative else argument.phrases), call)


def _append(text: str, phrase: str) -> str:
    end = text[-1] if text[-1] in ".?!" else ""
    return text.removesuffix(end) + phrase + end


def ask_by_name(rng: random.Random, call: Call) -> str:
    """Ask for a call by the name of the tool."""
    mark = rng.choices(("", "`", '"', "'"), (80, 10, 6, 4))[0]
    name = f"{mark}{call.tool.name}{mark}"
    arguments = call.arguments
    if not arguments:
        return rng.choice(WORDINGS.no_arguments).format(tool=name)
    draw = rng.random()
    all_required = all(argument.required for argument in call.tool.domain.arguments)
    if len(arguments) == 1 and all_required and draw < 0.35:
        value = next(iter(arguments.values()))
        return rng.choice(WORDINGS.one_value).format(tool=name, value=_written(rng, value, alone=True))
    if draw < 0.6:
        given_first = list(call.values) == [argument.slot for argument in call.tool.domain.arguments][: len(arguments)]
        if given_first and rng.random() < 0.75:
            inside = ", ".join(_written(rng, value, alone=len(arguments) == 1) for value in arguments.values())
        else:
            inside = _keywords(rng, arguments, "=")
        return rng.choice(WORDINGS.function_like).format(tool=call.tool.name, arguments=inside)
    said = _keywords(rng, arguments, rng.choice(("=", "=", " = ", ": ", " ", " set to ", " ")))
    return rng.choice(WORDINGS.with_arguments).format(tool=name, arguments=said)


def _keywords(rng: random.Random, arguments: dict[str, Any], sign: str) -> str:
    parts = [f"{name}{sign}{_written(rng, value, alone=len(arguments) == 1)}" for name, value in arguments.items()]
    if rng.random() < 0.2:
        rng.shuffle(parts)  # the call keeps the order of the schema all the same
    if sign in ("=", ": ") or len(parts) == 1 or rng.random() < 0.3:
        return ", ".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _written(rng: random.Random, value: Any, *, alone: bool) -> str:
    """Write a value as in code; `alone` says that no other value follows, so that quotes can be left out."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return f"`{value}`" if rng.random() < 0.05 else spoken(value)
    bare = re.fullmatch(r"[^\s,()]+", value) is not None or (alone and len(value) < 20)
    mark = rng.choices(("'", '"', "`", ""), (4, 3, 1, 4 if bare else 0))[0]
    return f"{mark}{value}{mark}"


def ask_for_each(rng: random.Random, calls: list[Call], *, by_name: bool) -> str:
    """Ask for two or three calls of one tool that takes one value, in one sentence.

    Args:
        rng: Source of randomness.
        calls: Calls of the same tool.
        by_name: Whether to name the tool.

    Returns:
        A request such as "What is the weather in Oslo and Rome?".
    """
    tool = calls[0].tool
    slot = tool.domain.arguments[0].slot
    values = [spoken(call.values[slot]) for call in calls]
    if by_name:
        if rng.random() < 0.4:
            written = [f"{tool.name}({value})" for value in values]
            return rng.choice(("What are {0}?", "Compute {0}.", "Give me {0}.", "I need {0}.", "{0}")).format(
                _listed(written)
            )
        written = [_written(rng, call.values[slot], alone=True) for call in calls]
        template = rng.choice(("Call {0} for {1}.", "Use {0} on {1}.", "Apply {0} to {1}.", "Run {0} for {1}."))
        return template.format(tool.name, _listed(written))
    templates = [template for template in tool.domain.plain if f"{{{slot}}}" in template]
    template = rng.choice(templates)
    joined = _listed(values)
    if len(values) == 2 and rng.random() < 0.3:
        in_a_place = f" in {{{slot}}}" in template and rng.random() < 0.6
        joined = (_PAIR_OF_PLACES if in_a_place else rng.choice(_PAIRS)).format(*values)
    return fill(template, calls[0].with_value(slot, joined))


def _listed(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def join(rng: random.Random, first: str, second: str) -> str:
    """Join two requests into one message."""
    if first.endswith(".") and second.endswith(".") and second[0].isupper() and rng.random() < 0.5:
        link = rng.choice((" and ", ", then ", " and then ", " and also "))
        return f"{first[:-1]}{link}{lower_first(second)}"
    if not first.endswith((".", "?", "!")):
        first += "."
    link = rng.choice((" ", " ", " Also: ", " And ", " Then: "))
    return f"{first}{link}{lower_first(second) if link == ' And ' else second}"


def lower_first(text: str) -> str:
    """Return `text` with a lower-case start, unless it starts with "I" or with something that is no word."""
    start = re.match(r"[A-Z][a-z']*\b(?![_(\d])", text)
    return text if start is None or start[0] == "I" or start[0].startswith("I'") else text[0].lower() + text[1:]


def dress(rng: random.Random, text: str, *, imperative: bool) -> str:
    """Add what people put around a request, or leave out what they leave out.

    Args:
        rng: Source of randomness.
        text: The request.
        imperative: Whether "please" and "can you" may go in front of it.

    Returns:
        The message of the user.
    """
    imperative = imperative and text.endswith(".") and "Please" not in text and lower_first(text) != text
    if imperative and rng.random() < 0.3:
        asking = rng.choice(WORDINGS.asking)
        text = asking + lower_first(text)
        if asking.startswith(("Can", "Could", "Would")):
            text = text[:-1] + "?"
    draw = rng.random()
    if draw < 0.08:
        greeting = rng.choice(WORDINGS.greetings)
        text = greeting + (lower_first(text) if greeting.endswith(", ") else text)
    elif draw < 0.15:
        text = rng.choice(WORDINGS.prefaces) + text
    elif draw < 0.25:
        # Only the start is made lower-case: values have to stay as they are.
        text = lower_first(text)
    draw = rng.random()
    if draw < 0.06 and text[-1] in ".?!":
        text += rng.choice(WORDINGS.endings)
    elif draw < 0.16:
        text = text.removesuffix(".").removesuffix("?")
    return text

"""Draws what is said and called in a conversation with tools: one exchange, or the end that is to be learnt."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langnorm.abacus.generator import names as name_pools
from langnorm.abacus.generator.tool_domains import DOMAINS
from langnorm.abacus.generator.tool_requests import (
    ask,
    ask_by_name,
    ask_for_each,
    draw_call,
    dress,
    join,
    lower_first,
    spoken,
)
from langnorm.abacus.generator.tool_schemas import Call, Tool, alike, draw_domains, lookalike, offer
from langnorm.abacus.generator.tool_turns import (
    assistant,
    calling,
    draw_result,
    expected,
    look_through,
    pairs,
    think_call,
    think_calls,
    tool_message,
    user,
    wants,
)
from langnorm.abacus.generator.tool_values import draw_value
from langnorm.abacus.generator.tool_wordings import WORDINGS

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from langnorm.abacus.generator.base import Split
    from langnorm.abacus.generator.tool_domains import Domain
    from langnorm.abacus.generator.tool_turns import Message, Style


@dataclass(frozen=True, slots=True)
class Scene:
    """What all messages of one example share; the first of the tools is the one to be called."""

    rng: random.Random
    split: Split
    random: bool
    tools: list[Tool]
    thinking: bool
    _order: list[Tool] = field(default_factory=list)

    def shown(self) -> list[Tool]:
        """Return the tools in the order in which they are offered, which the first call decides."""
        if not self._order:
            self._order.extend(self.rng.sample(self.tools, len(self.tools)))
        return self._order


@dataclass(frozen=True, slots=True)
class Ending:
    """The messages after the system message, the last being the one to be learnt, without its reasoning."""

    messages: list[Message]
    thought: str
    answer: str


def _draw_style(scene: Scene, tool: Tool) -> Style:
    """Choose how to ask for a tool: what it does tells enough only if its description is not empty."""
    if not tool.description:
        return "named"
    return scene.rng.choices(("plain", "implied", "named"), (38, 34, 28))[0]


def _ask(scene: Scene, call: Call, style: Style) -> str:
    if style == "named":
        return ask_by_name(scene.rng, call)
    return ask(scene.rng, call, implied=style == "implied")


def _request(scene: Scene) -> tuple[str, Call, Style]:
    """Draw a request for the first tool."""
    rng, tool = scene.rng, scene.tools[0]
    style = _draw_style(scene, tool)
    call = draw_call(rng, tool)
    if style == "named" and scene.random and len(scene.tools) < 4 and rng.random() < 0.3:
        scene.tools.append(lookalike(rng, tool, scene.split, {other.name for other in scene.tools}))
    text = _ask(scene, call, style)
    if style == "plain" and text.endswith(".") and rng.random() < 0.08 and lower_first(text) != text:
        text = f"Use {tool.name} to {lower_first(text)}"
    return dress(rng, text, imperative=style != "implied"), call, style


def _ends_with_calls(messages: list[Message], calls: Sequence[Call], thought: str) -> Ending:
    return Ending([*messages, calling(calls)], thought, expected(calls))


def _one_call(scene: Scene) -> Ending:
    text, call, style = _request(scene)
    return _ends_with_calls([user(text)], [call], think_call(scene.rng, call, style, scene.shown()))


def earlier_turn(scene: Scene) -> list[Message]:
    """Draw a finished exchange to stand before the request."""
    rng = scene.rng
    if not scene.tools or rng.random() < 0.1:
        small_talk = rng.choice(WORDINGS.small_talk)
        return [user(small_talk.request), assistant(small_talk.answer)]
    call = draw_call(rng, rng.choice(scene.tools))
    content, answer = draw_result(scene.rng, call)
    text = _ask(scene, call, _draw_style(scene, call.tool))
    return [user(text), calling([call]), tool_message(rng, call, content), assistant(answer)]


def _several(scene: Scene) -> tuple[str, list[Call], list[Style]]:
    """Draw a request for two or three calls, and how it asks for each."""
    rng, tool = scene.rng, scene.tools[0]
    listable = [other for other in scene.tools if other.domain.listable]
    if listable and (len(scene.tools) == 1 or rng.random() < 0.5):
        tool = rng.choice(listable)
        calls: list[Call] = []
        wanted = 3 if rng.random() < 0.25 else 2
        while len(calls) < wanted:
            call = draw_call(rng, tool, optional_share=0)
            if call not in calls:
                calls.append(call)
        by_name = not tool.description or rng.random() < 0.35
        text = dress(rng, ask_for_each(rng, calls, by_name=by_name), imperative=True)
        return text, calls, ["named" if by_name else "plain"] * wanted
    other = scene.tools[1] if len(scene.tools) > 1 else tool
    calls = [draw_call(rng, tool, 0.2), draw_call(rng, other, 0.2)]
    while calls[0].arguments == calls[1].arguments and tool is other and tool.domain.arguments:
        calls[1] = draw_call(rng, other, 0.2)
    styles: list[Style] = [_draw_style(scene, call.tool) for call in calls]
    text = join(rng, *(_ask(scene, call, style) for call, style in zip(calls, styles, strict=True)))
    return dress(rng, text, imperative=False), calls, styles


def _several_calls(scene: Scene) -> Ending:
    text, calls, styles = _several(scene)
    return _ends_with_calls([user(text)], calls, think_calls(scene.rng, calls, styles, scene.shown()))


def _answer_from_results(scene: Scene) -> Ending:
    """Draw a question, its calls, their results, and the answer that copies the values."""
    rng = scene.rng
    if rng.random() < 0.22:
        text, calls, _ = _several(scene)
    else:
        text, call, _ = _request(scene)
        calls = [call]
    results = [draw_result(scene.rng, call) for call in calls]
    tool_messages = [tool_message(rng, call, content) for call, (content, _) in zip(calls, results, strict=True)]
    answer = " ".join(answer for _, answer in results)
    returned = "; ".join(
        f"{call.tool.name} returned {content}" for call, (content, _) in zip(calls, results, strict=True)
    )
    thought = rng.choice(
        (
            f"{returned}.",
            f"The result is here: {returned}.",
            f"{returned}. I can answer.",
            f"{returned}. I pass it on.",
        )
    ).replace("..", ".")
    return Ending([user(text), calling(calls), *tool_messages, assistant(answer)], thought, answer)


def _error(scene: Scene) -> Ending:
    """Draw a call that fails, and the apology that carries the text of the error."""
    rng = scene.rng
    text, call, _ = _request(scene)
    reason = rng.choice(
        (
            "connection timed out", "service unavailable", "permission denied", "rate limit exceeded",
            "invalid input",
            "not found", "no entry for {value}", "{value} is not supported", "unknown value {value}",
            "{code}",
            "error {number}", "internal error {number}", "{word} is missing", "could not reach {word}",
        )
    )  # fmt: skip
    values = [spoken(value) for value in call.arguments.values()] or ["it"]
    reason = reason.format(
        value=rng.choice(values),
        code=name_pools.code(rng),
        number=rng.randint(100, 999),
        word=name_pools.word(rng),
    )
    content = rng.choice(
        ("Error: {0}", "error: {0}", '{{"error": "{0}"}}', "Failed: {0}", "ToolException: {0}", "ERROR {0}")
    )
    answer = rng.choice(
        (
            f"I am sorry, that did not work: {reason}.",
            f"I am sorry, the tool failed: {reason}.",
            f"Sorry, I got an error: {reason}.",
            f"I am sorry, {call.tool.name} reported an error: {reason}.",
        )
    )
    thought = rng.choice(
        (
            f"{call.tool.name} failed: {reason}.",
            f"The call went wrong: {reason}.",
            f"There is an error: {reason}. I say so.",
        )
    )
    message = tool_message(rng, call, content.format(reason))
    return Ending([user(text), calling([call]), message, assistant(answer)], thought, answer)


def _next_call(scene: Scene) -> Ending:
    """Draw two steps of which the first is done, so that the second call comes next."""
    rng, tool = scene.rng, scene.tools[0]
    if rng.random() < 0.6:
        # The result of the first call is the argument of the second.
        numeric = next(domain for domain in DOMAINS if domain.gist == "a number transformed")
        scene.tools[:] = offer(rng, [numeric, numeric], scene.split, random_names=scene.random)
        first, second = (draw_call(rng, tool) for tool in scene.tools)
        slot = numeric.arguments[0].slot
        result = draw_value(rng, "integer")
        second = second.with_value(slot, result)
        start = first.values[slot]
        text = rng.choice(
            (
                "Apply {0} to {2} and then {1} to the result.",
                "Call {0} with {2}, then {1} with what comes out.",
                "What is {1}({0}({2}))?",
                "Run {0} on {2} and pass the result to {1}.",
                "Compute {1} of {0} of {2}.",
            )
        ).format(first.tool.name, second.tool.name, start)
        content = rng.choice((str(result), json.dumps({"result": result}), f"The result is {result}."))
        why = f"{first.tool.name} returned {result}. Now {second.tool.name}: {pairs(second)}."
    else:
        if len(scene.tools) == 1:
            other = draw_domains(rng, 2, tool.domain)[1]
            scene.tools.extend(offer(rng, [other], scene.split, random_names=scene.random, taken={tool.name}))
        first, second = draw_call(rng, tool), draw_call(rng, scene.tools[-1])
        texts = [_ask(scene, call, "plain" if call.tool.description else "named") for call in (first, second)]
        text = rng.choice(("First: {0} Then: {1}", "{0} When that is done: {1}", "{0} After that: {1}")).format(*texts)
        content, _ = draw_result(scene.rng, first)
        arguments = f" with {pairs(second)}" if second.arguments else ""
        why = f"{first.tool.name} is done. Next is {second.tool.name}{arguments}."
    messages = [user(text), calling([first]), tool_message(rng, first, content)]
    return _ends_with_calls(messages, [second], why)


def no_call(scene: Scene) -> Ending:
    """Draw a message that no tool fits."""
    rng = scene.rng
    draw = rng.random()
    if draw < 0.3:
        small_talk = rng.choice(WORDINGS.small_talk)
        text, answer = small_talk.request, small_talk.answer
        if rng.random() < 0.3:
            text = text.lower()
        if rng.random() < 0.3 and "Hello" in answer:
            name = name_pools.person(rng)
            text, answer = f"{text} I am {name}.", answer.replace("Hello!", f"Hello {name}!")
        return Ending([user(text), assistant(answer)], small_talk.thought, answer)
    offered = [tool.domain for tool in scene.tools]
    domain = _unoffered(rng, offered)
    (absent,) = offer(rng, [domain], scene.split, random_names=scene.random)
    call = draw_call(rng, absent)
    if draw < 0.45 and absent.name not in {tool.name for tool in scene.tools}:
        text = dress(rng, ask_by_name(rng, call), imperative=True)
        answer = rng.choice(
            (
                f"I am sorry, I have no tool called {absent.name}.",
                f"There is no tool named {absent.name}.",
                f"Sorry, {absent.name} is not one of my tools.",
            )
        )
        thought = rng.choice((f"{absent.name} is not offered.", f"No tool is called {absent.name}."))
    else:
        implied = rng.random() < 0.5
        text = dress(rng, ask(rng, call, implied=implied), imperative=not implied)
        answer = rng.choice(
            (
                f"I am sorry, I have no tool for {domain.gist}.",
                "I am sorry, none of my tools can do that.",
                f"Sorry, I cannot help with {domain.gist}: I have no tool for it.",
                "I am sorry, I do not have a tool for that.",
            )
        )
        thought = f"{look_through(scene.shown())} {wants(rng, domain.gist)}. No tool fits.".lstrip()
    return Ending([user(text), assistant(answer)], thought, answer)


def _unoffered(rng: random.Random, offered: Sequence[Domain]) -> Domain:
    while True:
        domain = rng.choice(DOMAINS)
        if domain.refusable and not any(alike(domain, other) for other in offered):
            return domain


FORMS = {
    "call": _one_call,
    "no_arguments": _one_call,
    "calls": _several_calls,
    "answer": _answer_from_results,
    "error": _error,
    "next_call": _next_call,
}

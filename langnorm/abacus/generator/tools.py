"""Draws conversations in which tools are offered: calls, answers from results, and polite refusals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from langnorm.abacus.generator.base import Example, Split
from langnorm.abacus.generator.tool_domains import DOMAINS
from langnorm.abacus.generator.tool_exchanges import FORMS, Scene, earlier_turn, no_call
from langnorm.abacus.generator.tool_schemas import Tool, draw_domains, offer
from langnorm.abacus.generator.tool_wordings import WORDINGS

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence


Names = Literal["mixed", "known", "random"]

_RANDOM_NAMES_SHARE = 0.65
_SYSTEM_SHARE = 0.15
_PRACTICE_RANDOM_NAMES_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Shares:
    """How often what is drawn, as weights.

    Attributes:
        forms: Of the last message.
        counts: Of the number of tools.
        earlier_turns: Of 0, 1, ... finished exchanges before: a prompt with tools is long, and each turn in it is
            learnt from too.
        thinking: Share of examples that think.
    """

    forms: Mapping[str, float]
    counts: Mapping[int, float]
    earlier_turns: Sequence[float]
    thinking: float = 0.5


_COMMON = Shares(
    {"call": 50, "calls": 12, "no_arguments": 8, "none": 11, "answer": 15, "error": 2, "next_call": 2},
    {1: 46, 2: 28, 3: 16, 4: 10},
    (55, 25, 20),
)
_PRACTICE = replace(_COMMON, earlier_turns=(0, 0, 1, 1, 1))
# What is learnt last: to find the tool that fits among several, and to call more than one.
_CHOICE = Shares(
    {"call": 50, "calls": 20, "no_arguments": 8, "none": 6, "answer": 8, "error": 1, "next_call": 7},
    {1: 12, 2: 36, 3: 30, 4: 22},
    (75, 15, 10),
    thinking=0.85,
)


def practice(rng: random.Random, split: Split) -> Example:
    """Draw a conversation of many turns with the same tools, mostly of random names: more to copy per token."""
    return draw(rng, split, _practice_names(rng), _PRACTICE)


def choice(rng: random.Random, split: Split) -> Example:
    """Draw a conversation that thinks about which of several tools fits."""
    return draw(rng, split, _practice_names(rng), _CHOICE)


def _practice_names(rng: random.Random) -> Names:
    return "random" if rng.random() < _PRACTICE_RANDOM_NAMES_SHARE else "known"


def draw(rng: random.Random, split: Split, names: Names = "mixed", shares: Shares = _COMMON) -> Example:
    """Draw one conversation with tools.

    Args:
        rng: Source of randomness.
        split: The split the example is for, which decides which random names may appear.
        names: Whether tools have names that tell what they do, random names, or now one and now the other.
        shares: How often what is drawn.

    Returns:
        An example of the skill `"tools"`. Its details are the form of the final message, whether its names
        are known or random, and the number of tools.
    """
    is_random = names == "random" or (names == "mixed" and rng.random() < _RANDOM_NAMES_SHARE)
    form = rng.choices(list(shares.forms), list(shares.forms.values()))[0]
    count = rng.choices(list(shares.counts), list(shares.counts.values()))[0]
    no_tools = form == "none" and rng.random() < 0.25
    thinking = rng.random() < shares.thinking
    scene = Scene(rng, split, is_random, [], thinking)
    if form == "none":
        scene.tools.extend(_offer_for_none(scene, 0 if no_tools else count))
        ending = no_call(scene)
    else:
        scene.tools.extend(_offer_for_calls(scene, form, count))
        ending = FORMS[form](scene)
    shown = scene.shown()
    messages = list(ending.messages)
    for _ in range(rng.choices(range(len(shares.earlier_turns)), shares.earlier_turns)[0]):
        messages = [*earlier_turn(scene), *messages]
    if no_tools or rng.random() < _SYSTEM_SHARE:
        messages.insert(0, {"role": "system", "content": rng.choice(WORDINGS.system_messages)})
    if thinking:
        last = messages[-1]
        messages[-1] = {"role": "assistant", "content": last["content"], "reasoning_content": ending.thought}
        if "tool_calls" in last:
            messages[-1]["tool_calls"] = last["tool_calls"]
    return Example(
        skill="tools",
        messages=tuple(messages),
        tools=tuple(tool.schema for tool in shown),
        enable_thinking=thinking,
        answer=ending.answer,
        details={"form": form, "names": "random" if is_random else "known", "num_tools": len(shown)},
    )


def _offer_for_calls(scene: Scene, form: str, count: int) -> list[Tool]:
    """Offer tools, the first of which is the one to be called."""
    rng = scene.rng
    if form == "no_arguments":
        first = rng.choice([domain for domain in DOMAINS if not domain.arguments])
    else:
        first = rng.choice([domain for domain in draw_domains(rng, 6, weight_of_no_arguments=0.2) if domain.arguments])
    return offer(rng, draw_domains(rng, count, first), scene.split, random_names=scene.random)


def _offer_for_none(scene: Scene, count: int) -> list[Tool]:
    """Offer tools that leave a request that none of them fits."""
    while True:
        domains = draw_domains(scene.rng, count)
        # A search would fit any question, and a tool that says nothing about itself might fit too.
        if not any({"search", "mystery"} & set(domain.group.split()) for domain in domains):
            return offer(scene.rng, domains, scene.split, random_names=scene.random)

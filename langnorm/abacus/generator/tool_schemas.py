"""Turns a tool domain into a tool as LangChain's `convert_to_openai_tool` emits it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langnorm.abacus.generator import names
from langnorm.abacus.generator.tool_domains import DOMAINS

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Sequence

    from langnorm.abacus.generator.base import Split
    from langnorm.abacus.generator.tool_domains import Argument, Domain

KNOWN_NAMES = frozenset(name for domain in DOMAINS for name in domain.names) | frozenset(
    name for domain in DOMAINS for argument in domain.arguments for name in argument.names
)

_RANDOM_ARGUMENT_NAME = 0.65
# The domains whose description says little are the ones where only the request's own words tell what to
# call, as in most tests of a chat model, so they are drawn more often.
_MYSTERY_WEIGHT = 4
_NO_ARGUMENT_WEIGHT = 1


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that is offered to the model.

    Attributes:
        name: Its name.
        domain: What it does.
        argument_names: The names of the domain's arguments, in the order of the domain.
        schema: The tool as `convert_to_openai_tool` emits it.
    """

    name: str
    domain: Domain
    argument_names: tuple[str, ...]
    schema: dict[str, Any]

    @property
    def description(self) -> str:
        """The description in words, which may be empty."""
        return str(self.schema["function"]["description"])


def draw_domains(
    rng: random.Random,
    count: int,
    first: Domain | None = None,
    weight_of_no_arguments: float = _NO_ARGUMENT_WEIGHT,
) -> list[Domain]:
    """Draw domains that cannot be mistaken for one another.

    Args:
        rng: Source of randomness.
        count: How many domains.
        first: The domain to start from, if it is decided.
        weight_of_no_arguments: How often domains without arguments come up, relative to others.

    Returns:
        `count` domains, `first` at the front.
    """
    weights = [
        (weight_of_no_arguments if not domain.arguments else 1) * (_MYSTERY_WEIGHT if "mystery" in domain.group else 1)
        for domain in DOMAINS
    ]
    drawn = [] if first is None else [first]
    while len(drawn) < count:
        candidate = rng.choices(DOMAINS, weights)[0]
        if not any(alike(candidate, other) for other in drawn):
            drawn.append(candidate)
    return drawn


def alike(one: Domain, other: Domain) -> bool:
    """Return whether a request for one domain could be taken for a request for the other."""
    return bool(set(one.group.split()) & set(other.group.split()))


def offer(
    rng: random.Random,
    domains: Sequence[Domain],
    split: Split,
    *,
    random_names: bool,
    taken: Collection[str] = (),
) -> list[Tool]:
    """Make one tool of each domain, with names that differ.

    Args:
        rng: Source of randomness.
        domains: The domains.
        split: The split the example is for.
        random_names: Whether the tools' names and most of their arguments' names are random identifiers.
        taken: Names that are not free any more.

    Returns:
        The tools in the order of `domains`.
    """
    tools: list[Tool] = []
    for domain in domains:
        unavailable = {*taken, *(tool.name for tool in tools)}
        while True:
            name = names.identifier(rng, split) if random_names else rng.choice(domain.names)
            if name not in unavailable:
                break
        tools.append(_make(rng, domain, name, split, random_names=random_names))
    return tools


def lookalike(rng: random.Random, tool: Tool, split: Split, taken: set[str]) -> Tool:
    """Make a tool of the same domain whose random name is nearly that of `tool`."""
    while True:
        name = names.similar_identifier(rng, split, tool.name)
        if name not in taken:
            return _make(rng, tool.domain, name, split, random_names=True)


def _make(rng: random.Random, domain: Domain, name: str, split: Split, *, random_names: bool) -> Tool:
    argument_names: list[str] = []
    for argument in domain.arguments:
        while True:
            random_name = random_names and rng.random() < _RANDOM_ARGUMENT_NAME
            argument_name = names.identifier(rng, split) if random_name else rng.choice(argument.names)
            if argument_name not in argument_names:
                break
        argument_names.append(argument_name)
    # Without descriptions nothing would tell arguments with random names apart.
    told_by_name = not random_names or len(domain.arguments) == 1
    described = rng.random() < (0.4 if told_by_name else 1.0)
    as_dict = rng.random() < 0.06
    properties = {}
    for argument, argument_name in zip(domain.arguments, argument_names, strict=True):
        about = argument.about if described else None
        properties[argument_name] = _property(rng, argument, about, as_dict=as_dict)
    required_names = [
        argument_name
        for argument, argument_name in zip(domain.arguments, argument_names, strict=True)
        if argument.required
    ]
    required_part = {"required": required_names} if required_names else {}
    if as_dict:  # a tool that was written as a dict keeps the order in which people write it
        parameters = {"type": "object", "properties": properties, **required_part}
    else:
        parameters = {"properties": properties, **required_part, "type": "object"}
    description = rng.choice(domain.descriptions)
    if rng.random() < 0.15:
        description = description.removesuffix(".")
    schema = {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }
    return Tool(name, domain, tuple(argument_names), schema)


def _property(rng: random.Random, argument: Argument, about: str | None, *, as_dict: bool) -> dict[str, Any]:
    json_type = {"enum": "string", "strings": "array"}.get(argument.kind, argument.kind)
    if argument.kind == "integer" and rng.random() < 0.07:
        json_type = "number"
    content: dict[str, Any] = {"type": json_type}
    if argument.kind == "enum":
        content["enum"] = list(argument.choices)
    if argument.kind == "strings":
        content["items"] = {"type": "string"}
    if about is not None:
        content["description"] = about
    if argument.required or as_dict:
        pass
    elif argument.default is None:
        content = {
            "anyOf": [
                _sorted({key: content[key] for key in content if key != "description"}),
                {"type": "null"},
            ]
        }
        content["default"] = None
        if about is not None:
            content["description"] = about
    else:
        content["default"] = argument.default
    return content if as_dict else _sorted(content)


def _sorted(schema: dict[str, Any]) -> dict[str, Any]:
    # pydantic, which LangChain's schemas come from, sorts the keys of each property.
    return dict(sorted(schema.items()))


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool, by slots of its domain.

    Attributes:
        tool: The tool.
        values: The values of the arguments that are given, by slot, in the order of the schema.
    """

    tool: Tool
    values: dict[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        """The values by the names of the arguments."""
        pairs = zip(self.tool.domain.arguments, self.tool.argument_names, strict=True)
        return {name: self.values[argument.slot] for argument, name in pairs if argument.slot in self.values}

    def with_value(self, slot: str, value: Any) -> Call:
        """Return the call with another value for one slot."""
        return dataclasses.replace(self, values={**self.values, slot: value})

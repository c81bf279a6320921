"""The domains of tools, read from `content/tool_domains_*.toml`: what they do and return, and how users ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from langnorm.abacus.generator.tables import load

Kind = Literal["string", "integer", "number", "boolean", "enum", "strings"]


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument that the tools of a domain take.

    Attributes:
        names: Candidates for its name. The first is also its slot in request templates.
        kind: Its type.
        about: What its description says.
        pool: The pool of `tool_values` that its values come from; empty for an enum.
        choices: The values of an enum.
        phrases: What a request appends to give an optional argument (when true, for a boolean). An
            argument without phrases is required.
        negative_phrases: What a request appends to make an optional boolean false.
        default: The default of an optional argument.
    """

    names: tuple[str, ...]
    kind: Kind
    about: str
    pool: str = ""
    choices: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    negative_phrases: tuple[str, ...] = ()
    default: Any = None

    @property
    def slot(self) -> str:
        """The name by which templates refer to the argument."""
        return self.names[0]

    @property
    def required(self) -> bool:
        """Whether every call gives the argument."""
        return not self.phrases


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tool returns, as keys with the pools of their values, and sentences that say it."""

    fields: dict[str, str]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """One kind of tool, with all the ways to describe it, to ask for it and to report its result.

    Attributes:
        group: Domains that share a word of this text are too alike to be offered together.
        gist: What the user wants, as it fits after "The user wants".
        names: Names that say what the tool does.
        descriptions: Descriptions of the tool.
        plain: Requests that ask for the action. Those that end with a period are imperative.
        implied: Requests that only make sense with such a tool.
        outcome: The result.
        arguments: The arguments, required ones first.
        listable: Whether "A and B" in the place of the only value asks for two calls.
        refusable: Whether a model without such a tool has to say so.
    """

    group: str
    gist: str
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    plain: tuple[str, ...]
    implied: tuple[str, ...]
    outcome: Outcome
    arguments: tuple[Argument, ...] = ()
    listable: bool = False
    refusable: bool = True


@dataclass(frozen=True, slots=True)
class Domains:
    """The domains of one file."""

    domains: tuple[Domain, ...]


DOMAINS: tuple[Domain, ...] = tuple(
    domain
    for file_name in ("tool_domains_world.toml", "tool_domains_data.toml")
    for domain in load(file_name, Domains).domains
)

"""The shapes in which the tables of tool domains are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["string", "integer", "number", "boolean", "enum", "strings"]


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument that the tools of a domain take.

    Attributes:
        names: Candidates for its name. The first is also its slot in request templates.
        kind: Its type.
        pool: The pool of `tool_values` that its values come from, or none for an enum.
        about: What its description says.
        choices: The values of an enum.
        phrases: What a request appends to give an optional argument (when true, for a boolean). An
            argument without phrases is required.
        negative_phrases: What a request appends to make an optional boolean false.
        default: The default of an optional argument.
    """

    names: tuple[str, ...]
    kind: Kind
    pool: str
    about: str
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

    fields: tuple[tuple[str, str], ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """One kind of tool, with all the ways to describe it, to ask for it and to report its result.

    Attributes:
        group: Domains that share a word of this text are too alike to be offered together.
        gist: What the user wants, as it fits after "The user wants".
        names: Names that say what the tool does.
        descriptions: Descriptions of the tool.
        arguments: The arguments, required ones first.
        plain: Requests that ask for the action. Those that end with a period are imperative.
        implied: Requests that only make sense with such a tool.
        outcome: The result.
        listable: Whether "A and B" in the place of the only value asks for two calls.
        refusable: Whether a model without such a tool has to say so.
    """

    group: str
    gist: str
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    arguments: tuple[Argument, ...]
    plain: tuple[str, ...]
    implied: tuple[str, ...]
    outcome: Outcome
    listable: bool = False
    refusable: bool = True


def required(names: str, pool: str, about: str, kind: Kind = "string") -> Argument:
    """Return a required argument; `names` are separated by spaces."""
    return Argument(tuple(names.split()), kind, pool, about)


def optional(
    names: str, pool: str, about: str, phrases: tuple[str, ...], kind: Kind = "string", default: Any = None
) -> Argument:
    """Return an optional argument; `names` are separated by spaces."""
    return Argument(tuple(names.split()), kind, pool, about, phrases=phrases, default=default)


def choice(names: str, choices: str, about: str, phrases: tuple[str, ...] = (), default: str | None = None) -> Argument:
    """Return an enum argument, optional if it has phrases; names and choices are separated by spaces."""
    return Argument(
        tuple(names.split()),
        "enum",
        "",
        about,
        choices=tuple(choices.split()),
        phrases=phrases,
        default=default,
    )


def flag(names: str, about: str, phrases: tuple[str, ...], negative_phrases: tuple[str, ...]) -> Argument:
    """Return an optional boolean argument; `names` are separated by spaces."""
    return Argument(
        tuple(names.split()), "boolean", "boolean", about, phrases=phrases, negative_phrases=negative_phrases,
        default=False,
    )  # fmt: skip

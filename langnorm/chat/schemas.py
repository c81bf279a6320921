"""JSON schemas as plain data: copied and checked, closed, and searched for references that lead nowhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import unquote

from langnorm.checks import brief
from langnorm.errors import MissingDependencyError, OptionError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

MOST_LEVELS = 100
"""How deep lists and objects of a schema may be nested: what walks through schemas calls itself for each level."""
MOST_PARTS = 20_000
"""How many values a schema may have in all."""

_NAMED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")  # keys over the user's names
_VALUES = ("enum", "const", "default", "examples", "required")  # keys over what is no schema
_JOINED = ("allOf", "anyOf", "oneOf", "if", "then", "else", "not")  # keys over schemas of the same value


# Those that are the least integer of 64 bits when they are made floats.
_FATAL = range(-(2**63) - 1024, -(2**63) + 513)


def plain_copy(value: Any, owner: str = "This schema") -> Any:
    """Return a copy that has nothing but what JSON has, so that whatever reads it next cannot stumble.

    Args:
        value: A schema, or a tool with one.
        owner: What has it, in words for the error.

    Raises:
        OptionError: It has something that JSON lacks, text that is no Unicode, is nested too deeply or contains itself,
            or is too large.
    """
    num_parts = 0

    def copy(value: Any, path: tuple[str, ...]) -> Any:
        nonlocal num_parts
        num_parts += 1
        if len(path) > MOST_LEVELS:
            _refuse(owner, f"it is nested more than {MOST_LEVELS} levels deep, or contains itself", "Make it flatter.")
        if num_parts > MOST_PARTS:
            _refuse(owner, f"it has more than {MOST_PARTS:,} values", "Make it smaller.")
        if isinstance(value, Mapping):
            return {text(name, path): copy(item, (*path, str(name))) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy(item, (*path, str(number))) for number, item in enumerate(value)]
        if isinstance(value, str):
            return text(value, path)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float) and value in _FATAL:
            _refuse(
                owner, f"`{brief(value)}` in it would end the process, by a fault of llguidance", "Use another one."
            )
        if isinstance(value, int) and abs(value) < 10**300:
            return int(value)
        if isinstance(value, float) and abs(value) < float("inf"):
            return float(value)
        where = f"`{'.'.join(path)}` is" if path else "it is"
        _refuse(owner, f"{where} `{brief(value)}`", "Use strings, numbers, lists and dicts.")

    def text(value: Any, path: tuple[str, ...]) -> str:
        where = f" in `{'.'.join(path)}`" if path else ""
        if not isinstance(value, str):
            _refuse(owner, f"the name `{brief(value)}`{where} is no text", "Use names that are strings.")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"the text `{brief(value)}`{where} has half of a surrogate pair at {error.start}"
            _refuse(owner, half, "Leave it out, or decode the text as UTF-8.")
        return str.__str__(value)  # of an Enum that is a string too

    return copy(value, ())


def _refuse(owner: str, what: str, mend: str) -> NoReturn:
    msg = f"{owner} cannot be written as JSON: {what}. {mend}"
    raise OptionError(msg)


def check_schema(schema: Mapping[str, Any] | bool, owner: str = "This schema") -> None:  # noqa: FBT001
    """Do nothing if a plain copy of a schema is well formed, and its references lead somewhere.

    Args:
        schema: What `plain_copy` returned.
        owner: What has it, in words for the error.

    Raises:
        MissingDependencyError: jsonschema is not installed.
        OptionError: A keyword has a value that it cannot have, or references form a circle without a value in it.
    """
    if what := _find_fault(json.dumps(schema, ensure_ascii=False)):
        msg = f"{owner} cannot be held to: {what}. Mend it there."
        raise OptionError(msg)


@lru_cache(maxsize=128)
def _find_fault(text: str) -> str:
    """Return what is wrong with a schema, or nothing."""
    exceptions, validators = _jsonschema("exceptions"), _jsonschema("validators")
    schema = json.loads(text)
    dialect = schema.get("$schema") if isinstance(schema, dict) else None
    if not isinstance(dialect, str | None):
        return f"`$schema` is `{brief(dialect)}`, which is no text"
    try:
        validators.validator_for(schema, default=validators.Draft202012Validator).check_schema(schema)
    except exceptions.SchemaError as error:
        return f"`{error.json_path}`: {_shortened(error.message)}"
    except RecursionError:
        return "it is nested too deeply"
    for part in _walk(schema, subschemas):
        if "$ref" in part and resolve(schema, part["$ref"]) is None:
            return f"`$ref` is `{brief(part['$ref'])}`; it must begin with `#/` and lead to a part of the schema"
    try:
        TopologicalSorter(_references(schema, is_same_value=True)).prepare()
    except CycleError as error:
        return f"the references {' -> '.join(f'`{name}`' for name in error.args[1])} form a circle"
    return ""


def _shortened(text: str, most: int = 200) -> str:
    return text if len(text) <= most else text[:most] + " ..."


def is_recursive(schema: Any) -> bool:
    """Return whether a part of a schema refers to itself, on whatever way."""
    try:
        TopologicalSorter(_references(schema, is_same_value=False)).prepare()
    except CycleError:
        return True
    return False


def references(schema: Any) -> dict[str, Any]:
    """Return the parts of a schema that others refer to, by reference; what is reached last is last."""
    found: dict[str, Any] = {}
    waiting = [schema]
    while waiting:
        for part in _walk(waiting.pop(), subschemas):
            name = part.get("$ref")
            if isinstance(name, str) and name not in found and (target := resolve(schema, name)) is not None:
                found[name] = target
                waiting.append(target)
    return found


def _references(schema: Any, *, is_same_value: bool) -> dict[str, set[str]]:
    """Return which references each reference leads to, in all of its parts or in those for the same value only."""
    children = _of_same_value if is_same_value else subschemas
    targets = {"#": schema, **references(schema)}
    return {
        name: {ref for part in _walk(target, children) if isinstance(ref := part.get("$ref"), str) and ref in targets}
        for name, target in targets.items()
    }


def _walk(schema: Any, children: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and what is below it."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield part
            waiting.extend(children(part))


def subschemas(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the schemas directly inside of a schema."""
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, Mapping):
            yield from value.values()
        elif key not in _VALUES:
            yield from value if isinstance(value, list) else [value]


def _of_same_value(schema: Mapping[str, Any]) -> Iterator[Any]:
    for key in _JOINED:
        value = schema.get(key, [])
        yield from value if isinstance(value, list) else [value]


def resolve(schema: Any, reference: str) -> Any:
    """Return the part of a schema that a reference names by its way from the top, or None where there is none."""
    if not re.fullmatch(r"#(/.*)?", reference, re.DOTALL):
        return None
    part = schema
    for step in unquote(reference[1:]).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, Mapping) and name in part:
            part = part[name]
        elif isinstance(part, list) and name.isascii() and name.isdigit() and int(name) < len(part):
            part = part[int(name)]
        else:
            return None
    return part


def moved_schema(schema: Any, to: str) -> Any:
    """Return a schema that stands elsewhere in another one, its references with it.

    Args:
        schema: A plain copy.
        to: Its way from the top of the other one, such as `"/properties/value"`.
    """
    if isinstance(schema, list):
        return [moved_schema(item, to) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            moved[key] = f"#{to}{value[1:]}"
        elif key in _NAMED and isinstance(value, dict):
            moved[key] = {name: moved_schema(item, to) for name, item in value.items()}
        else:
            moved[key] = value if key in _VALUES else moved_schema(value, to)
    return moved


def closed_schema(schema: Any, *, is_open: bool = False) -> Any:
    """Return a schema whose objects have no properties but those that it names, as function calling understands it.

    Args:
        schema: A JSON schema or a part of one.
        is_open: Whether the object at its top is joined with others, which may name more.
    """
    if isinstance(schema, list):
        return [closed_schema(item, is_open=is_open) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    joined = {*_JOINED, "$ref"}
    is_joined = "allOf" in schema or ("properties" in schema and bool(joined & set(schema)))
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, Mapping):
            closed[key] = {name: closed_schema(item) for name, item in value.items()}
        elif key in _VALUES:
            closed[key] = value
        else:
            closed[key] = closed_schema(value, is_open=key in joined and (is_joined or is_open))
    if "properties" in closed and not (is_open or is_joined or "patternProperties" in closed):
        closed.setdefault("additionalProperties", False)
    return closed


class SchemaCheck(Protocol):
    """Says what of a value is not in a schema."""

    def __call__(self, value: Any) -> str:
        """Return what is wrong with a value, in words, or an empty text."""


def build_check(schema: Mapping[str, Any]) -> SchemaCheck:
    """Return what compares values with a schema that `check_schema` let pass.

    Raises:
        MissingDependencyError: jsonschema is not installed.
    """
    exceptions, validators = _jsonschema("exceptions"), _jsonschema("validators")
    from referencing import Registry

    base = validators.validator_for(schema, default=validators.Draft202012Validator)
    kind = validators.extend(base, {"pattern": _check_pattern})
    validator: Validator = kind(schema, registry=Registry())  # which fetches nothing from anywhere

    def check(value: Any) -> str:
        try:
            error = exceptions.best_match(validator.iter_errors(value))
        except RecursionError:
            return "it is nested too deeply"
        return f"`{error.json_path}`: {_shortened(error.message)}" if error else ""

    return check


def _check_pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Exception]:
    """Yield an error where a text has not the pattern; one in a dialect of its own has been seen to by the grammar."""
    try:
        is_match = not isinstance(instance, str) or re.search(pattern, instance)
    except re.error:
        return
    if not is_match:
        yield _jsonschema("exceptions").ValidationError(f"`{instance}` has not the pattern `{pattern}`")


def _jsonschema(module: str) -> Any:
    try:
        return import_module(f"jsonschema.{module}")
    except ImportError as error:
        msg = 'Structured output needs the package `jsonschema`. Install it with `pip install "langnorm[structured]"`.'
        raise MissingDependencyError(msg) from error

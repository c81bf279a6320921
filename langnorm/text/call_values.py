"""Arguments that are not written as JSON: in tags, as Python, or as Gemma writes them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from langnorm.text.tool_calls import check_characters, load_json

_JSON_TYPES: Mapping[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
}
_WORDS = {"True": "true", "False": "false", "None": "null"}  # as models that think in Python write them


def coerced(text: str, schema: Any) -> Any:
    """Return the value that a text means where a JSON schema says of which type it is; a text where nothing fits.

    Args:
        text: The value, written without quotes whatever its type is.
        schema: Of this argument; anything else than a mapping says nothing.
    """
    types = _types(schema)
    stripped = text.strip()
    if "string" in types and not ("null" in types and stripped in ("null", "None")):
        return text
    try:
        value = load_json(_WORDS.get(stripped, stripped))
    except ValueError:
        return text
    if not types:
        # Nothing is said of it: what has the form of a list or an object is one.
        return value if isinstance(value, dict | list) else text
    if isinstance(value, float) and value.is_integer() and "integer" in types and "number" not in types:
        return int(value)
    allowed = [kind for name in types for kind in _JSON_TYPES.get(name, ())]
    return value if type(value) in allowed else text


def _types(schema: Any) -> set[str]:
    """Return the JSON types that a schema names."""
    if not isinstance(schema, Mapping):
        return set()
    named = schema.get("type")
    types = {kind for kind in (named if isinstance(named, list) else [named]) if isinstance(kind, str)}
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        for option in options if isinstance(options, list) else []:
            types |= _types(option)
    if not types and isinstance(schema.get("enum"), list):
        types = {name for value in schema["enum"] for name, kinds in _JSON_TYPES.items() if type(value) in kinds}
        types |= {"string"} if any(isinstance(value, str) for value in schema["enum"]) else set()
    return types


def python_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls of a text such as `[weather(city="Oslo"), time()]` or of one call, which is never run.

    Raises:
        ValueError: It is something else, or an argument has no name, is no literal, or has half of a surrogate pair.
    """
    # A backslash that escapes nothing stays one, without a warning of Python.
    text = re.sub(
        r"\\(.)", lambda m: m[0] if m[1] in "\\'\"abfnrtvxNuU01234567\n" else f"\\{m[0]}", text, flags=re.DOTALL
    )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        msg = f"it is not Python: {error}"
        raise ValueError(msg) from error
    calls = []
    for node in tree.elts if isinstance(tree, ast.List) else [tree]:
        if not isinstance(node, ast.Call) or node.args:
            msg = "it is not a call with named arguments"
            raise ValueError(msg)
        arguments = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                msg = "its arguments are unpacked"
                raise ValueError(msg)
            arguments[keyword.arg] = _literal(keyword.value)
        check_characters(arguments)
        calls.append((_dotted(node.func), arguments))
    return calls


def _dotted(node: ast.expr) -> str:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        msg = "what it calls has no name"
        raise ValueError(msg)  # noqa: TRY004 - what a model wrote, and no argument of ours
    return ".".join([node.id, *reversed(names)])


def _literal(node: ast.expr | None) -> Any:
    """Return the JSON value of a Python literal."""
    match node:
        case ast.Constant(value=str() | bool() | None as value):
            return value
        case ast.Constant(value=int(value)):
            str(value)  # of a hexadecimal number with more digits than can be written, it raises ValueError
            return value
        case ast.Constant(value=float(value)) if isfinite(value):
            return value
        case ast.Name(id="true" | "false" | "null" as name):
            return {"true": True, "false": False, "null": None}[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item) for item in items]
        case ast.Dict(keys=keys, values=values) if all(isinstance(key, ast.Constant) for key in keys):
            names = [_literal(key) for key in keys]
            if all(isinstance(name, str) for name in names):
                return dict(zip(names, map(_literal, values), strict=True))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return _literal(ast.Constant(value)) * -1
    msg = "an argument is no literal"
    raise ValueError(msg)


_KEY = re.compile(r"([{,]\s*)([^\s{}\[\],:\"]+)\s*:")


def gemma_arguments(text: str, quote: str) -> dict[str, Any]:
    """Return the arguments of a text such as `{city:<escape>Oslo<escape>,days:2}`.

    Args:
        text: From brace to brace.
        quote: What stands around strings: `<escape>`, or as Gemma 4 writes it.

    Raises:
        ValueError: It is something else.
    """
    parts = text.split(quote)
    written = [json.dumps(part) if number % 2 else _KEY.sub(r'\1"\2":', part) for number, part in enumerate(parts)]
    arguments = load_json("".join(written))
    if not isinstance(arguments, dict):
        msg = "it is no object"
        raise ValueError(msg)  # noqa: TRY004 - what a model wrote, and no argument of ours
    return arguments
